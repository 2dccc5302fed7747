"""One port for several processes: each has a socket of its own, and the kernel spreads connections over them.

The parent opens them all and keeps them, so that what waits for a front end that died waits for the next one.
One socket for all would give one of them all that come at once: whoever is awake takes what there is.
"""

from __future__ import annotations

import socket

from mass_serve.server.web.process import BACKLOG, listen


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """Opens so many sockets on a port that nobody else has. Raises OSError."""
    if count == 1:
        return [listen(host, port)]
    first = listen(host, port)  # alone: with SO_REUSEPORT it would share the port of another server
    found = [first]
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.extend(_beside(first) for _ in range(count - 1))
    except OSError:
        for one in found:
            one.close()
        raise
    return found


def reserve(host: str, port: int) -> socket.socket:
    """Takes a port that others of our processes will share, and does not listen. Raises OSError."""
    with listen(host, port) as alone:  # raises where somebody has it
        address = alone.getsockname()
        family = alone.family
    reserved = socket.socket(family)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError:
        reserved.close()
        raise
    return reserved


def _beside(first: socket.socket) -> socket.socket:
    other = socket.socket(first.family)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(first.getsockname())
    other.listen(BACKLOG)
    return other
