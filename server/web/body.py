"""Reading a request's body within its limit, and noticing when the caller has gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from mass_serve.server.errors import ClientGoneError, DeadlineError, SlowClientError, TooLargeError
from mass_serve.server.serving.requests import RequestContext
from mass_serve.server.serving.service import Service

SLOWEST_BYTES_PER_SECOND = 1000

T = TypeVar("T")


async def read_body(request: Request, service: Service, limit: int | None = None) -> bytes:
    """The whole body, which counts against the bytes that the service holds until the request is answered.

    From its end on the request has `request_timeout` seconds. Raises TooLargeError by the announced length
    before reading, or as soon as more than `limit` came, which is `max_body_bytes` by default, and
    SlowClientError for one that takes `client_timeout` seconds longer than its length at the slowest rate,
    MemoryFullError when too many bytes are held already.
    """
    context: RequestContext = request.state.context
    limit = service.settings.max_body_bytes if limit is None else limit
    too_large = TooLargeError(
        f"The body is larger than {limit} bytes, which is the limit; send fewer or smaller images."
    )
    announced = request.headers.get("content-length", "")
    # A length of many digits is over any limit, and int() refuses very long ones.
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limit):
        raise too_large
    chunks: list[bytes] = []
    received = 0
    clock = asyncio.get_running_loop().time
    last_moment = clock() + service.settings.client_timeout
    try:
        async with asyncio.timeout_at(last_moment) as patience:
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    raise too_large
                service.hold(len(chunk), context)
                chunks.append(chunk)
                patience.reschedule(last_moment + received / SLOWEST_BYTES_PER_SECOND)
    except TimeoutError as error:
        raise SlowClientError(
            f"Only {received} bytes of the body came in time; send it faster than {SLOWEST_BYTES_PER_SECOND}"
            " bytes a second."
        ) from error
    context.deadline = time.monotonic() + service.settings.request_timeout
    return b"".join(chunks)


async def while_awaited(request: Request, service: Service, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller hangs up, and at the request's deadline.

    Needs the body to be read. Raises ClientGoneError and DeadlineError.
    """
    context: RequestContext = request.state.context
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        left = context.deadline - time.monotonic()
        await asyncio.wait((working, leaving), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if leaving.done():
            raise ClientGoneError("The client closed the connection before its answer was ready.")
        raise DeadlineError.after(service.settings.request_timeout)
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
