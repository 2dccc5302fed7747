"""Reading a request's body within its limit, and noticing when the caller has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from server.errors import ClientGoneError, TooLargeError

T = TypeVar("T")


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises TooLargeError by the announced length before reading, or as soon as more than `limit` bytes came.
    """
    too_large = TooLargeError(
        f"The body is larger than {limit} bytes, which is the limit; send fewer or smaller images."
    )
    announced = request.headers.get("content-length", "")
    # A length of many digits is over any limit, and int() refuses very long ones.
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limit):
        raise too_large
    chunks: list[bytes] = []
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise too_large
        chunks.append(chunk)
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
