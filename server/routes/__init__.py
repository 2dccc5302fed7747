"""One module per group of paths; each has a `router` that `server.app` includes."""
