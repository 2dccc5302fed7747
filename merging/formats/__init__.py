"""How what one task changed is kept; one file a format."""
