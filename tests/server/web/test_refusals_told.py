"""When callers are told that there is no room: later, for who asks often, but never with a body in memory."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.types import Receive, Scope, Send

from mass_serve.server.errors import QueueFullError
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.refusals import AT_ONCE, Refusals
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.web.error_handlers import install_error_handlers
from mass_serve.server.web.receiving import IF_THERE_IS_ROOM

ASKED = int(AT_ONCE) + 3


class FullQueue:
    def refuse_when_full(self, _: Caller) -> None:
        raise QueueFullError("The queue is full.")


@pytest.mark.parametrize(("path", "told_late"), [("/before-the-body", 3), ("/after-the-body", 0)])
def test_only_those_wait_whose_body_was_not_read(path: str, told_late: int) -> None:
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    app = FastAPI()
    app.state.service = SimpleNamespace(batcher=FullQueue(), refusals=Refusals(lambda: 0.0, sleep))
    install_error_handlers(app, Metrics(8, {}))

    @app.post("/before-the-body", dependencies=IF_THERE_IS_ROOM)
    async def before() -> None:
        raise AssertionError("refused before")

    @app.post("/after-the-body")
    async def after(request: Request) -> None:
        await request.body()
        raise QueueFullError("Too many images are ahead.")

    async def with_context(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["context"] = RequestContext("r")
        await app(scope, receive, send)

    async def ask() -> set[int]:
        transport = httpx.ASGITransport(app=with_context)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return {(await client.post(path, content=b"body")).status_code for _ in range(ASKED)}

    assert asyncio.run(ask()) == {429}
    assert len(delays) == told_late
