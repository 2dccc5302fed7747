"""Connections in TLS: asyncio's, with the limits that every connection has from its first byte on."""

from __future__ import annotations

import asyncio
import math
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable

from mass_serve.server.serving.caller import caller_at
from mass_serve.server.serving.observer import ServingObserver
from mass_serve.server.web.connections import Guest, TimedConnection
from mass_serve.server.web.crowd import Crowd


class SecureConnection(SSLProtocol):
    """Shakes hands within `client_timeout`, and is counted in the crowd meanwhile as any other connection.

    asyncio's own server would hold a connection that says nothing for a minute, and tell of it only then.
    """

    def __init__(
        self,
        connection: Callable[[SecureConnection], TimedConnection],
        context: ssl.SSLContext,
        client_timeout: float,
        crowd: Crowd[Guest],
        observer: ServingObserver,
    ) -> None:
        """`connection` makes what is inside."""
        super().__init__(
            asyncio.get_running_loop(),
            connection(self),
            context,
            # Nobody waits for the handshake.
            None,  # type: ignore[arg-type]
            server_side=True,
            ssl_handshake_timeout=math.ceil(client_timeout),
            ssl_shutdown_timeout=math.ceil(client_timeout),
        )
        self._crowd = crowd
        self._observer = observer
        self._below: asyncio.Transport | None = None
        self._shakes_hands = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._below = transport
        address = transport.get_extra_info("peername")
        self._crowd.enter(caller_at(address[0] if address else None).name, self)
        if (one_too_many := self._crowd.one_too_many()) is not None:
            one_too_many.drop("no_room")
        if not transport.is_closing():
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._shakes_hands:
            self._ends_handshake("handshake")
        super().connection_lost(exc)

    def begins(self) -> None:
        """The connection inside begins, and is counted in the place of this one."""
        self._shakes_hands = False
        self._crowd.leave(self)

    def drop(self, reason: str) -> None:
        """Ends a connection that has not shaken hands yet."""
        assert self._below is not None
        self._ends_handshake(reason)
        self._below.abort()

    @property
    def unsent(self) -> int:
        """Bytes that wait between TLS and the kernel."""
        return 0 if self._below is None else self._below.get_write_buffer_size()

    def _ends_handshake(self, reason: str) -> None:
        self._shakes_hands = False
        self._crowd.leave(self)
        self._observer.connection_dropped(reason)
