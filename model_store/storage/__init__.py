"""Where the bytes of a store are: a local folder or an object store, each with its lock."""
