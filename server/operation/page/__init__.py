"""The page at `/` to try the server with, and its samples; it loads nothing from other hosts."""
