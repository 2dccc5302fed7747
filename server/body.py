"""Reading a request's body within its limit, and noticing when the caller has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from server.errors import ClientGoneError, SlowClientError, TooLargeError
from server.service import RequestRecord, Service

SLOWEST_BYTES_PER_SECOND = 1000

T = TypeVar("T")


async def read_body(request: Request, service: Service) -> bytes:
    """The whole body, which counts against the bytes that the service holds until the request is answered.

    Raises TooLargeError by the announced length before reading, or as soon as more than the limit came, and
    SlowClientError for one that takes `client_timeout` seconds longer than its length at the slowest rate,
    MemoryFullError when too many bytes are held already.
    """
    record: RequestRecord = request.state.record
    limit = service.settings.max_body_bytes
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
                service.hold(len(chunk), record)
                chunks.append(chunk)
                patience.reschedule(last_moment + received / SLOWEST_BYTES_PER_SECOND)
    except TimeoutError as error:
        raise SlowClientError(
            f"Only {received} bytes of the body came in time; send it faster than {SLOWEST_BYTES_PER_SECOND}"
            " bytes a second."
        ) from error
    return b"".join(chunks)


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the caller hangs up. Needs the body to be read.

    Raises ClientGoneError.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("The client closed the connection before its answer was ready.")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
