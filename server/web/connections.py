"""HTTP/1.1 connections that a slow, silent or babbling client cannot hold for long."""

from __future__ import annotations

import asyncio
import fcntl
import json
import sys
import termios
import uuid
from typing import Any, Protocol

import h11
import structlog
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from mass_serve.server.serving.caller import caller_at
from mass_serve.server.serving.observer import ServingObserver
from mass_serve.server.web.crowd import Crowd
from mass_serve.server.web.metered_parser import MeteredParser, RefusedError
from mass_serve.server.web.turns import EVENTS_AT_ONCE, Turns

NOT_HTTP = "Invalid HTTP request received. Send HTTP/1.1 with well-formed headers."

log = structlog.get_logger(__name__)


class Guest(Protocol):
    """A connection that counts as one of the crowd."""

    def drop(self, reason: str) -> None:
        """Ends it at once."""

    def __hash__(self) -> int:
        """A connection is itself alone."""


class Below(Protocol):
    """What a connection goes through, where that is not the network itself: TLS."""

    def begins(self) -> None:
        """The connection is there: hands are shaken."""

    @property
    def unsent(self) -> int:
        """Bytes that it has taken and not given to the kernel yet."""


class HeldFlow(FlowControl):
    """uvicorn's control of who may send, which reads no more while what was read is not handled."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._held = False

    def hold(self) -> None:
        """Reads no more until `release`, whatever the application asks for."""
        self._held = True
        self._transport.pause_reading()

    def release(self) -> None:
        """Reads on, unless the application has a reason not to."""
        self._held = False
        if not self.read_paused:
            self._transport.resume_reading()

    def resume_reading(self) -> None:
        if self._held:
            self.read_paused = False
        else:
            super().resume_reading()


class TimedConnection(H11Protocol):
    """uvicorn's connection with the limits that it lacks, of time and of work.

    uvicorn limits the time between two requests and nothing else. Here a client has `client_timeout` seconds
    to send the headers of a request, from its first byte (or from the connection on), and as long to take
    up any more of an answer. The body's time is the route's business. Where more connections are open than
    `crowd` allows, one of the address that has most is closed. What was read is handled in turns with the
    other connections, a few events at a time.
    """

    def __init__(
        self,
        *args: Any,
        client_timeout: float,
        crowd: Crowd[Guest],
        observer: ServingObserver,
        turns: Turns,
        below: Below | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.conn = self._parser = MeteredParser()
        self._observer = observer
        self._turns = turns
        self._waits_for_turn = False
        self._client_timeout = client_timeout
        self._crowd = crowd
        self._below = below
        self._headers_timer: asyncio.TimerHandle | None = None
        self._reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._held_flow = HeldFlow(transport)
        self._turn = caller_at(self.client[0] if self.client else None).turn()
        self._time_headers()
        if self._below is not None:
            self._below.begins()
        self._crowd.enter(self._turn.caller, self)
        # Before the process has no descriptors left, which would stop everybody.
        if (one_too_many := self._crowd.one_too_many()) is not None:
            one_too_many.drop("no_room")

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        self._stop_headers_timer()
        self._stop_reading_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_headers()

    def handle_events(self) -> None:
        """Handles a few events where it is this connection's turn, and waits for it elsewhere."""
        if self._waits_for_turn:
            return
        if self._turns.takes_one():
            self._handle_some()
        else:
            self._wait_for_turn()

    def _handle_some(self) -> None:
        self._parser.allow(EVENTS_AT_ONCE)
        try:
            super().handle_events()
        except RefusedError as refusal:
            self._refuse(str(refusal), refusal.reason)
        if self._parser.held_back and not self.transport.is_closing():
            self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        self._waits_for_turn = True
        self._held_flow.hold()
        self._turns.wait(self._turn, self)

    def go_on(self) -> None:
        """Handles a few events more of what was read."""
        self._waits_for_turn = False
        if self.transport.is_closing():
            return
        self._handle_some()
        if not self._waits_for_turn and not self.transport.is_closing():
            self._held_flow.release()
        self._time_headers()

    def on_response_complete(self) -> None:
        self._crowd.ends(self)
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

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the parser's words are always the same
        """Answers what is not HTTP with the same shape of error as everything else."""
        self._refuse(NOT_HTTP, "bad_request")

    def _refuse(self, text: str, reason: str) -> None:
        """Ends the connection, with a 400 where no answer has begun; then no other answer may follow it."""
        self._count_drop(reason)
        if self.conn.our_state is h11.SEND_BODY:
            self.transport.abort()  # in the middle of an answer there is no place for another one
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send_400(text)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _send_400(self, text: str) -> None:
        body = json.dumps({"error": text}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", uuid.uuid4().hex.encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")

    def drop(self, reason: str) -> None:
        """Ends the connection at once."""
        if not self.transport.is_closing():
            self._count_drop(reason)
        self._crowd.leave(self)
        self.transport.abort()

    def _count_drop(self, reason: str) -> None:
        self._observer.connection_dropped(reason)
        log.debug("connection dropped", reason=reason, client=self.client and self.client[0])

    def _time_headers(self) -> None:
        """Runs the clock exactly while bytes of a request are awaited, and neither answered nor idle."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._crowd.begins(self)
        if answering or self.timeout_keep_alive_task is not None or self.transport.is_closing():
            self._stop_headers_timer()
        elif self._headers_timer is None:
            self._headers_timer = self.loop.call_later(self._client_timeout, self.drop, "slow_headers")

    def _await_reading(self) -> None:
        self._stop_reading_timer()
        self._reading_timer = self.loop.call_later(self._client_timeout, self._expect_less, self._unread())

    def _expect_less(self, before: int) -> None:
        """Ends the connection of a client that has read nothing; a slow one is waited for."""
        self._reading_timer = None
        if self._unread() >= before:
            self.drop("slow_reader")
        elif self.transport.get_write_buffer_size():
            self._await_reading()

    def _unread(self) -> int:
        """Bytes that the client has not taken up: the kernel's buffer can hold many seconds' worth."""
        connection = self.transport.get_extra_info("socket")
        held = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        between = 0 if self._below is None else self._below.unsent
        return self.transport.get_write_buffer_size() + between + int.from_bytes(held, sys.byteorder)

    def _stop_headers_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _stop_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None
