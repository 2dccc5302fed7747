"""The commands of `mass-serve`; each module has a `register` that `server.cli` calls."""
