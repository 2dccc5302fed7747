"""The process: one listening socket, a graceful end, and an exit code that tells the truth."""

from __future__ import annotations

import logging
import math
import os
import resource
import signal
import socket
import sys
import time
from functools import partial
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from mass_serve.server.serving.service import Service
from mass_serve.server.settings import Settings
from mass_serve.server.web.connections import TimedConnection

# How long a dead server still answers, so that callers learn of it and a probe can see it.
FAREWELL_SECONDS = 1.0
BACKLOG = 2048
# Files that are open beside connections: the store while it loads, logs, what torch and the exporter hold.
OTHER_DESCRIPTORS = 100


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


class DrainingServer(uvicorn.Server):
    """uvicorn, except that SIGTERM first takes the server out of rotation and only later closes the listener.

    Stock uvicorn closes it at once, which fails the requests of every balancer that has not noticed yet.
    SIGINT, and a second signal, skip the grace period: whoever types Ctrl-C does not want to wait.
    """

    def __init__(self, config: uvicorn.Config, service: Service, grace_seconds: float) -> None:
        super().__init__(config)
        self._service = service
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


def _within_descriptors(connections: int) -> int:
    """As many of the connections as the process may have files open, after raising that limit if need be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_DESCRIPTORS
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(connections, max(1, soft - OTHER_DESCRIPTORS))


def run(app: FastAPI, settings: Settings, listener: socket.socket) -> int:
    """Serves until told to stop. Returns the exit code: 0, or 1 after the worker died.

    Raises what loading the engine raised.
    """
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        http=partial(  # type: ignore[arg-type]
            TimedConnection,
            client_timeout=settings.client_timeout,
            max_connections=_within_descriptors(settings.max_connections),
        ),
        # In whole seconds, which is what uvicorn's type says and more than enough.
        timeout_keep_alive=math.ceil(settings.idle_timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        server_header=False,
        # Whoever is still sending or reading then has had its full time.
        timeout_graceful_shutdown=math.ceil(settings.request_timeout) + 1,
    )
    signal.signal(signal.SIGHUP, lambda *_: service.store.reload())
    DrainingServer(config, service, settings.drain_seconds).run(sockets=[listener])
    if service.load_error is not None:
        raise service.load_error
    code = 0 if service.alive else 1
    if service.busy:
        _leave_at_once(code)
    return code


def _leave_at_once(code: int) -> NoReturn:
    """Ends the process without tearing the interpreter down, which aborts while a thread is inside torch."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
