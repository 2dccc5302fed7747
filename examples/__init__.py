"""Images that a new user runs the service on, and the demo suite that its checkpoints come from."""
