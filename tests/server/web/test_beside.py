"""When transports beside HTTP begin to listen: before the application is up, or once it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from fastapi import FastAPI

from mass_serve.server.app import create_app
from mass_serve.server.serving.service import Service
from mass_serve.server.settings import load_settings
from mass_serve.server.web.process import DrainingServer, listen
from tests.server.fake_server import FakeSource


class Recorded:
    """A transport that notes when it starts."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    async def start(self) -> None:
        self._events.append("transport")

    async def stop(self) -> None:
        self._events.append("stopped")


@pytest.mark.parametrize(
    ("last", "expected"), [(False, ["transport", "application"]), (True, ["application", "transport"])]
)
def test_a_transport_takes_no_calls_before_the_application_where_it_is_last(
    last: bool, expected: list[str]
) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        events.append("application")
        yield

    service: Service = create_app(load_settings({}), FakeSource(0.0)).state.service
    config = uvicorn.Config(FastAPI(lifespan=lifespan), log_config=None, lifespan="on")
    config.load()

    async def serve() -> None:
        server = DrainingServer(config, service, 0.0, [Recorded(events)], beside_last=last)
        server.lifespan = config.lifespan_class(config)
        with listen("127.0.0.1", 0) as listener:
            await server.startup([listener])
            await server.shutdown([listener])

    asyncio.run(serve())
    assert events == [*expected, "stopped"]
