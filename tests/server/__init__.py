"""The service: against a fake engine, and as a real process."""
