"""The service: protocols, queue, hot swap and transports around an engine."""
