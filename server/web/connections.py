"""HTTP/1.1 connections that a slow, silent or babbling client cannot hold for long."""

from __future__ import annotations

import asyncio
import fcntl
import json
import math
import sys
import termios
import uuid
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedConnection(H11Protocol):
    """uvicorn's connection with the time limits that it lacks.

    uvicorn limits the time between two requests and nothing else. Here a client has `client_timeout` seconds
    to send the headers of a request, from its first byte (or from the connection on), and as long to take
    up any more of an answer. The body's time is the route's business. Where there are more connections than
    `max_connections`, the one that has waited for a request for longest is closed.
    """

    def __init__(self, *args: Any, client_timeout: float, max_connections: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._client_timeout = client_timeout
        self._max_connections = max_connections
        self._headers_timer: asyncio.TimerHandle | None = None
        self._reading_timer: asyncio.TimerHandle | None = None
        self._idle_since = math.inf  # infinite while a request is answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._time_headers()
        if len(self.connections) > self._max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_headers_timer()
        self._stop_reading_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_headers()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()
        self._time_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        self._stop_reading_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Ends a connection on which nothing came; a client that still takes up its answer is let finish."""
        if not self.transport.get_write_buffer_size():
            super().timeout_keep_alive_handler()
        else:
            if self._reading_timer is None:
                self._await_reading()
            again = self.loop.call_later(self._client_timeout, self.timeout_keep_alive_handler)
            self.timeout_keep_alive_task = again

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP with the same shape of error as everything else."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # in the middle of an answer there is no place for another one
            return
        body = json.dumps({"error": f"{msg} Send HTTP/1.1 with well-formed headers."}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", uuid.uuid4().hex.encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _time_headers(self) -> None:
        """Runs the clock exactly while bytes of a request are awaited, and neither answered nor idle."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._idle_since = math.inf
        if answering or self.timeout_keep_alive_task is not None or self.transport.is_closing():
            self._stop_headers_timer()
        elif self._headers_timer is None:
            self._headers_timer = self.loop.call_later(self._client_timeout, self.transport.abort)

    def _make_room(self) -> None:
        """Closes one connection before the process has no descriptors left, which would stop everybody.

        Whoever has just come has waited the shortest, and goes only where all others are being answered.
        """
        kept = [
            connection
            for connection in self.connections
            if isinstance(connection, TimedConnection) and not connection.transport.is_closing()
        ]
        if len(kept) > self._max_connections:
            min(kept, key=lambda connection: connection._idle_since).transport.abort()

    def _await_reading(self) -> None:
        self._stop_reading_timer()
        self._reading_timer = self.loop.call_later(self._client_timeout, self._expect_less, self._unread())

    def _expect_less(self, before: int) -> None:
        """Ends the connection of a client that has read nothing; a slow one is waited for."""
        self._reading_timer = None
        if self._unread() >= before:
            self.transport.abort()
        elif self.transport.get_write_buffer_size():
            self._await_reading()

    def _unread(self) -> int:
        """Bytes that the client has not taken up: the kernel's buffer can hold many seconds' worth."""
        connection = self.transport.get_extra_info("socket")
        held = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        return self.transport.get_write_buffer_size() + int.from_bytes(held, sys.byteorder)

    def _stop_headers_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _stop_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None
