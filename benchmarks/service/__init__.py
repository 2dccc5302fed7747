"""The service under load: a real server, a load generator in a process of its own, and figures."""
