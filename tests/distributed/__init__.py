"""The server and jobs on Ray."""
