"""When callers are told that there is no room: later, for who asks often, but never with a body in memory."""

from __future__ import annotations

import asyncio
import weakref

import httpx
from fastapi import FastAPI, Request
from starlette.types import Receive, Scope, Send

from mass_serve.server.errors import MemoryFullError, QueueFullError
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving.refusals import AT_ONCE, Refusals
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.settings import load_settings
from mass_serve.server.web.error_handlers import install_error_handlers
from tests.server.fakes import FakeEngine
from tests.server.serving.test_service import FakeSource

ASKED = int(AT_ONCE) + 3


class Body(bytearray):
    """A body of which one can tell whether it is in memory."""


class Bench:
    """An application whose every request is refused after its body was read."""

    def __init__(self, refusal: type[QueueFullError]) -> None:
        self.bodies: list[weakref.ref[Body]] = []
        self.in_memory_meanwhile: list[int] = []
        self.held_meanwhile: list[int] = []
        self.service = Service(load_settings({}), FakeSource(FakeEngine()), Metrics({}))
        self.service.refusals = Refusals(lambda: 0.0, self.sleep)
        self.app = FastAPI()
        install_error_handlers(self.app, self.service)

        @self.app.post("/")
        async def refuse(request: Request) -> None:
            body = Body(await request.body())
            self.bodies.append(weakref.ref(body))
            self.service.hold(len(body), request.state.context)
            raise refusal(f"There is no room for {len(body)} bytes.")

    async def sleep(self, _: float) -> None:
        self.in_memory_meanwhile.append(sum(body() is not None for body in self.bodies))
        self.held_meanwhile.append(self.service.held_bytes)

    async def ask(self) -> list[int]:
        async def with_context(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("state", {})["context"] = RequestContext("r")
            await self.app(scope, receive, send)

        transport = httpx.ASGITransport(app=with_context)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            statuses = [(await client.post("/", content=b"body")).status_code for _ in range(ASKED)]
        await self.service.close()
        return statuses


def test_who_is_refused_often_is_told_later_and_holds_no_memory_meanwhile() -> None:
    bench = Bench(QueueFullError)
    assert asyncio.run(bench.ask()) == [429] * ASKED
    assert len(bench.bodies) == ASKED
    assert bench.in_memory_meanwhile == [0] * 3
    assert bench.held_meanwhile == [0] * 3


def test_other_refusals_are_told_at_once() -> None:
    """Whoever they are for has waited already, or comes with a body that must not be kept."""
    bench = Bench(MemoryFullError)
    assert asyncio.run(bench.ask()) == [429] * ASKED
    assert bench.held_meanwhile == []
