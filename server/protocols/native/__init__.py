"""The service's own protocol, under /v1."""
