"""Requests a second of this server, LitServe and mosec with an encoder of the same sizes, in one run."""
