"""Work on a request ends with the caller's patience, and with the server's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request

from mass_serve.server.errors import ClientGoneError, DeadlineError
from mass_serve.server.protocols.open_inference.repository_routes import _parameters
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.serving.threads import Threads
from mass_serve.server.web.receiving import while_awaited

SERVICE = cast(Service, SimpleNamespace(settings=SimpleNamespace(request_timeout=0.1)))


def request_of(context: RequestContext, stays: float, **known: object) -> Request:
    """Of a caller who hangs up after so many seconds."""

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(stays)
        return {"type": "http.disconnect"}

    state = SimpleNamespace(context=context)
    return cast(Request, SimpleNamespace(state=state, receive=receive, **known))


@pytest.mark.parametrize(("stays", "error"), [(60.0, DeadlineError), (0.01, ClientGoneError)])
def test_a_parse_that_takes_too_long(stays: float, error: type[Exception]) -> None:
    """The caller has its answer, and the end of the process does not wait for the thread."""
    gate = threading.Event()
    threads = Threads(1, "parse")

    async def parse() -> None:
        context = RequestContext("r", deadline=time.monotonic() + 0.1)
        await while_awaited(
            request_of(context, stays), SERVICE, threads.run(Turn("somebody", 2), 1.0, gate.wait, 20.0)
        )

    with pytest.raises(error):
        asyncio.run(parse())
    assert threads.busy
    threads.close()
    assert threads.busy, "closing has not waited"
    gate.set()
    while threads.busy:
        time.sleep(0.001)


def test_an_admins_body_waits_for_a_thread_no_longer_than_any_other() -> None:
    async def parse_late(*_: object) -> None:
        await asyncio.sleep(60.0)

    async def empty() -> AsyncIterator[bytes]:
        yield b""

    settings = SimpleNamespace(request_timeout=0.1, client_timeout=20.0)
    held = SimpleNamespace(settings=settings, parsers=SimpleNamespace(run=parse_late), hold=lambda *_: None)
    service, context = cast(Service, held), RequestContext("r")
    request = request_of(context, 60.0, headers={}, stream=empty)
    with pytest.raises(DeadlineError):
        asyncio.run(_parameters(request, service, context))


def test_what_nobody_waits_for_does_not_begin() -> None:
    gate = threading.Event()
    begun: list[int] = []
    threads = Threads(1, "parse")

    async def leave() -> None:
        first = asyncio.ensure_future(threads.run(Turn("somebody", 2), 1.0, gate.wait, 20.0))
        second = asyncio.ensure_future(threads.run(Turn("somebody", 2), 1.0, begun.append, 1))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        assert await first

    asyncio.run(leave())
    threads.close()
    assert begun == []


def test_callers_take_turns_at_a_thread() -> None:
    """A caller with many bodies keeps another waiting for one of them, and not for all."""
    threads = Threads(1, "parse")
    done: list[str] = []

    async def scenario() -> None:
        gate = threading.Event()
        first = asyncio.ensure_future(threads.run(Turn("many", 2), 1.0, gate.wait, 20.0))
        await asyncio.sleep(0)
        many = [
            asyncio.ensure_future(threads.run(Turn("many", 2), 1.0, done.append, "many")) for _ in range(5)
        ]
        await asyncio.sleep(0)
        one = asyncio.ensure_future(threads.run(Turn("one", 2), 1.0, done.append, "one"))
        gone = asyncio.ensure_future(threads.run(Turn("gone", 2), 1.0, done.append, "gone"))
        await asyncio.sleep(0)
        gone.cancel()
        gate.set()
        await asyncio.gather(first, one, *many)

    asyncio.run(scenario())
    threads.close()
    assert done.index("one") <= 1
    assert sorted(done) == ["many"] * 5 + ["one"], "whoever left took no thread"
