"""One replica: the whole server behind Ray's proxy, and what the server's own process does elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from mass_serve.distributed.board import board
from mass_serve.distributed.cluster_source import ClusterSource
from mass_serve.distributed.expositions import TELL_SECONDS
from mass_serve.distributed.settings import RaySettings
from mass_serve.distributed.share import within_share
from mass_serve.server.app import create_app
from mass_serve.server.operation.expositions import merged
from mass_serve.server.operation.logs import configure_logs
from mass_serve.server.operation.metrics_routes import Scrapes
from mass_serve.server.serving.service import Service
from mass_serve.server.startup import store_source

CHECK_SECONDS = 0.1

log = structlog.get_logger(__name__)


def replica_app(settings: RaySettings) -> FastAPI:
    """Builds the application of the replica that this process is. Raises SettingsError."""
    replica = serve.get_replica_context().replica_id.unique_id
    settings = within_share(settings)
    configure_logs(settings)
    structlog.contextvars.bind_contextvars(replica=replica)
    app = create_app(settings, ClusterSource.of(store_source(settings), replica))
    scrapes = ReplicaScrapes(replica, app.state.scrapes)
    app.state.scrapes = scrapes
    app.add_middleware(WithoutRequestId)
    app.router.lifespan_context = partial(_lifespan, app.router.lifespan_context, app.state.service, scrapes)
    return app


@asynccontextmanager
async def _lifespan(
    own: Lifespan[FastAPI], service: Service, scrapes: ReplicaScrapes, app: FastAPI
) -> AsyncIterator[None]:
    """Starts the server and waits until it is ready: Ray sends requests to whatever has started.

    Raises RuntimeError where the store cannot be loaded.
    """
    async with own(app):
        tasks = [asyncio.create_task(work) for work in (_check(service), scrapes.keep_telling())]
        try:
            while not service.ready and service.alive:
                await asyncio.sleep(CHECK_SECONDS)
            if service.load_error is not None:
                # Ray logs it with its traceback, again and again.
                raise RuntimeError(f"the store cannot be loaded: {service.load_error}") from None
            yield
        finally:
            service.draining = True
            for task in tasks:
                task.cancel()
            await scrapes.leave()


async def _check(service: Service) -> None:
    """Gives up what hangs, as the server's own process does ten times a second."""
    while True:
        service.check()
        await asyncio.sleep(CHECK_SECONDS)


class WithoutRequestId:
    """Leaves the header X-Request-Id to Ray's proxy, which sends the same once more."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""

        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["X-Request-Id"]
            await send(message)

        await self._app(scope, receive, send_without)


class ReplicaScrapes:
    """Answers for all replicas what Prometheus asks any of them, as each tells the board what it counts."""

    def __init__(self, replica: str, own: Scrapes) -> None:
        self._replica, self._own = replica, own

    async def text(self) -> bytes:
        """Returns the exposition of all replicas; of this one alone where there is no board."""
        return merged(await self._exchange(), "replica").encode()

    async def keep_telling(self) -> None:
        """Tells the board again and again."""
        while True:
            await self._exchange()
            await asyncio.sleep(TELL_SECONDS)

    async def leave(self) -> None:
        """Tells the board that this replica ends."""
        with suppress(RayError, ValueError):
            await board().leave.remote(self._replica)

    async def _exchange(self) -> dict[str, str]:
        own = (await self._own.text()).decode()
        try:
            told: dict[str, str] = await board().exchange.remote(self._replica, own)
        except (RayError, ValueError) as error:  # it is being started anew
            log.warning("the board does not answer", error=str(error).partition("\n")[0])
            return {self._replica: own}
        return told
