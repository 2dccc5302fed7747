"""HTTP as a transport: connections, bodies, middleware and the process. It knows no protocol's messages."""
