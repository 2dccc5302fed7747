"""HTTP/1.1 connections that a slow, silent or babbling client cannot hold for long."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedConnection(H11Protocol):
    """uvicorn's connection with the time limits that it lacks.

    uvicorn limits the time between two requests and nothing else. Here a client has `client_timeout` seconds
    to send the headers of a request, from its first byte (or from the connection on), and as long to take
    up an answer that it has stopped reading. The body's time is the route's business. Connections beyond
    `max_connections` are closed at once.
    """

    def __init__(self, *args: Any, client_timeout: float, max_connections: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._client_timeout = client_timeout
        self._max_connections = max_connections
        self._headers_timer: asyncio.TimerHandle | None = None
        self._reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            transport.abort()  # before the process has no descriptors left, which stops everybody
        else:
            self._time_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._time_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_timer = self.loop.call_later(self._client_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for so long; what the client has not taken up by now is dropped with it."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets the same shape of error as everything else."""
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
        if answering or self.timeout_keep_alive_task is not None or self.transport.is_closing():
            self._stop_headers_timer()
        elif self._headers_timer is None:
            self._headers_timer = self.loop.call_later(self._client_timeout, self.transport.abort)

    def _stop_headers_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _stop_timers(self) -> None:
        self._stop_headers_timer()
        if self._reading_timer is not None:
            self._reading_timer.cancel()
