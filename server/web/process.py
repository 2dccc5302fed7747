"""The process: one listening socket, a graceful end, and an exit code that tells the truth."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any, NoReturn, Protocol

import structlog
import uvicorn
from fastapi import FastAPI

from mass_serve.server.errors import LoadTimeoutError
from mass_serve.server.serving.observer import ServingObserver
from mass_serve.server.serving.service import Service
from mass_serve.server.serving.tls import TlsFiles
from mass_serve.server.settings import Settings, SettingsError
from mass_serve.server.web.connections import Guest, TimedConnection
from mass_serve.server.web.crowd import Crowd
from mass_serve.server.web.secure_connection import SecureConnection
from mass_serve.server.web.turns import Turns

log = structlog.get_logger(__name__)

# How long a dead server still answers, so that callers learn of it and a probe can see it.
FAREWELL_SECONDS = 1.0
BACKLOG = 2048
# New connections that the loop takes before it looks at the others again: some 20 ms of its time.
ACCEPTED_AT_ONCE = 64
# A thread that wants the interpreter's lock waits so long before it asks the one that has it. The event loop
# gives it up with every read of a socket, and waited 5 ms each time beside a thread that parsed.
SWITCH_SECONDS = 0.0005
# Files that are open beside connections: the store while it loads, logs, what torch and the exporter hold.
OTHER_DESCRIPTORS = 100
# A worker process's socket, its shared memory, and while it starts what it says; as many of the one that it
# replaces, and two of the system's own way to start a process.
DESCRIPTORS_A_WORKER = 8
# Beside those that decode: one for a large image, one that parses, and a spare.
OTHER_WORKERS = 3
# More than any two revisions of a store have tasks.
TASK_DESCRIPTORS = 1 << 16
# What accept() fails with where the process, or the machine, can have no more sockets.
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def listen(host: str, port: int) -> socket.socket:
    """Opens the socket before the slow load, so that a busy port is known at once. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class Beside(Protocol):
    """Another transport, on the same event loop."""

    async def start(self) -> None:
        """Listens. Raises SettingsError where it cannot."""

    async def stop(self) -> None:
        """Takes nothing new, and returns when what was accepted is answered; once it has, at once."""


class DrainingServer(uvicorn.Server):
    """uvicorn, except that SIGTERM first takes the server out of rotation and only later closes the listener.

    Stock uvicorn closes it at once, which fails the requests of every balancer that has not noticed yet.
    SIGINT, and a second signal, skip the grace period: whoever types Ctrl-C does not want to wait.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        grace_seconds: float,
        beside: Sequence[Beside] = (),
        *,
        beside_last: bool = False,
    ) -> None:
        """The transports `beside` listen before anything is loaded, or last, once the application is up."""
        super().__init__(config)
        self._beside_last = beside_last
        self._service = service
        self._beside = beside
        self._stopping: list[asyncio.Task[None]] = []
        self._grace_seconds = grace_seconds
        self._close_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Notes what a signal asks for; `on_tick` acts on it."""
        if self.should_exit:
            self.force_exit = True
        elif sig == signal.SIGINT or self._service.draining:
            self.should_exit = True
        else:
            self._close_at = time.monotonic() + self._grace_seconds
        self._service.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, and to hear of connections that could not be taken."""
        count_failed_accepts(asyncio.get_running_loop(), self._service.observer)
        if not self._beside_last:
            await self._start_beside()
        await super().startup(sockets)
        if self._beside_last and not self.should_exit:
            await self._start_beside()
        for listener in sockets or []:
            listener.listen(BACKLOG)  # the loop knows one number for this and for ACCEPTED_AT_ONCE

    async def _start_beside(self) -> None:
        for transport in self._beside:
            await transport.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains all transports at once; the application's end waits for each of them."""
        self._stopping = [asyncio.create_task(transport.stop()) for transport in self._beside]
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Looks after the service, ten times a second, and returns whether to close the listener."""
        self._service.check()
        if self._service.load_error is not None:
            self.should_exit = True
        elif not self._service.alive:
            self._close_at = min(self._close_at, time.monotonic() + FAREWELL_SECONDS)
        if time.monotonic() >= self._close_at:
            self.should_exit = True
        return await super().on_tick(counter)


def count_failed_accepts(loop: asyncio.AbstractEventLoop, observer: ServingObserver) -> None:
    """Lets a loop tell of an accept() without a descriptor, which it tries again after a second.

    All its other errors are logged as ever, with their tracebacks.
    """

    def on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # Only there the loop names a socket; elsewhere such an error is of somebody's file.
        if "socket" in context and isinstance(error, OSError) and error.errno in NO_DESCRIPTOR:
            observer.connection_dropped("no_descriptor")
            log.warning("no descriptor for a connection", error=error.strerror)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(on_error)


def need_descriptors(settings: Settings) -> None:
    """Lifts the limit on open files as far as connections of this process need, of several front ends of one.

    Raises SettingsError where it stays low.

    With `resident_task_bytes` the files of tasks stay open, too: it is lifted for those as far as it goes.
    """
    soft, hard = (
        math.inf if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    others = OTHER_DESCRIPTORS + DESCRIPTORS_A_WORKER * (settings.decode_workers + OTHER_WORKERS)
    # Those that come in one turn of the loop are counted, and as many closed, in the next ones.
    others += 2 * ACCEPTED_AT_ONCE
    needed = settings.max_connections + settings.max_grpc_connections + others
    of_tasks = 0 if settings.resident_task_bytes is None else TASK_DESCRIPTORS
    wanted = int(min(needed + of_tasks, hard))
    if soft < wanted and needed <= hard:
        most = resource.RLIM_INFINITY if math.isinf(hard) else int(hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    if hard < needed:
        most_connections = (hard - others) * settings.front_ends
        lower = f" or set max_connections to at most {most_connections}" if hard > others else ""
        raise SettingsError(
            f"max_connections: {settings.max_connections} connections need {needed} open files, and a"
            f" process may have {hard}; raise that limit (ulimit -Hn){lower}"
        )


def run(
    app: FastAPI,
    settings: Settings,
    listener: socket.socket,
    server: Callable[[uvicorn.Config, Service, float, Sequence[Beside]], DrainingServer] = DrainingServer,
) -> int:
    """Serves until told to stop. Returns the exit code: 0, or 1 after the worker died.

    Raises what loading the engine raised, and SettingsError where too few files may be open. Ends the process
    with 1 where the first load hangs: the thread that reads cannot be ended.
    """
    need_descriptors(settings)
    service: Service = app.state.service
    sys.setswitchinterval(SWITCH_SECONDS)
    config = uvicorn.Config(
        app,
        # Not uvloop, which uvicorn takes where it finds it. It saves 6 % of the loop's time, takes all new
        # connections before it looks at anybody else, and tells nobody of an accept() without a descriptor.
        # Nor httptools in place of h11. It saves at most 13 % of the processor time of a request with a
        # small image, but it cannot be paused between two requests or chunks, nor says where one ended, and
        # it joins headers that go on in the next line: each limit would need a parser of our own before it.
        loop="asyncio",
        http=_connections(settings, service.observer, app.state.tls),  # type: ignore[arg-type]
        # In whole seconds, which is what uvicorn's type says and more than enough.
        timeout_keep_alive=math.ceil(settings.idle_timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        backlog=ACCEPTED_AT_ONCE,
        server_header=False,
        # A caller is where its connection comes from. uvicorn believes what callers on this machine say of
        # theirs, so that each could be anybody: limits and delays would hold nobody.
        proxy_headers=False,
        # Whoever is still sending or reading then has had its full time.
        timeout_graceful_shutdown=math.ceil(settings.request_timeout) + 1,
    )
    signal.signal(signal.SIGHUP, lambda *_: service.store.reload())
    server(config, service, settings.drain_seconds, app.state.beside).run(sockets=[listener])
    load_error = service.load_error
    if isinstance(load_error, LoadTimeoutError):
        log.error(str(load_error))
        leave_at_once(1)
    if load_error is not None:
        raise load_error
    code = 0 if service.alive else 1
    if service.busy:
        leave_at_once(code)
    return code


def _connections(
    settings: Settings, observer: ServingObserver, tls: TlsFiles | None
) -> Callable[..., asyncio.Protocol | asyncio.BufferedProtocol]:
    """Returns what makes a connection, in TLS where the settings say so."""
    crowd, patience = Crowd[Guest](settings.max_connections), settings.client_timeout
    plain = partial(TimedConnection, client_timeout=patience, crowd=crowd, observer=observer, turns=Turns())
    if tls is None:
        return plain

    def secure(**given: Any) -> SecureConnection:
        return SecureConnection(
            lambda below: plain(**given, below=below), tls.current.context, patience, crowd, observer
        )

    return secure


def leave_at_once(code: int) -> NoReturn:
    """Ends the process without tearing the interpreter down, which aborts while a thread is inside torch."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
