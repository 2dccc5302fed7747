"""One folder a protocol: its requests and answers, which know no transport, and its routes."""
