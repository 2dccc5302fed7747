"""What a route takes from a request: the service, the request's context and keys, its place, and its body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from io import BytesIO
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.responses import Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from mass_serve.server.errors import (
    ClientGoneError,
    DeadlineError,
    SlowClientError,
    TooLargeError,
)
from mass_serve.server.serving.entrance import let_in
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service

# A body may take `client_timeout` seconds, and a second more for each so many bytes.
SLOWEST_BYTES_PER_SECOND = 1000

T = TypeVar("T")


# The framework would run plain functions on threads, where probes would wait for each other.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _context(request: Request) -> RequestContext:
    context: RequestContext = request.state.context
    return context


CurrentService = Annotated[Service, Depends(_service)]
CurrentContext = Annotated[RequestContext, Depends(_context)]


async def _keys(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    header: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
) -> list[str]:
    """Returns the keys that the caller presents, in either way or in both."""
    given = [bearer.credentials if bearer else None, header]
    return [key for key in given if key]


PresentedKeys = Annotated[list[str], Depends(_keys)]


async def _require_inference(service: CurrentService, context: CurrentContext, keys: PresentedKeys) -> None:
    await let_in(service, context, keys, service.access.require_inference)


async def _require_admin(service: CurrentService, context: CurrentContext, keys: PresentedKeys) -> None:
    await let_in(service, context, keys, service.access.require_admin)


async def _require_room(service: CurrentService, context: CurrentContext) -> None:
    service.refuse_when_full(context.caller)


# For routes that take images: an overloaded server refuses before it reads any.
IF_THERE_IS_ROOM = [Depends(_require_room)]
# For routers: checked before a body is read.
FOR_INFERENCE = [Depends(_require_inference)]
FOR_ADMINS = [Depends(_require_admin)]


async def read_body(request: Request, service: Service, limit: int | None = None) -> bytes:
    """Reads the whole body; its bytes count as held by the service until the request is answered.

    From its end on the request has `request_timeout` seconds. Raises TooLargeError by the announced length
    before reading, or as soon as more than `limit` came, which is `max_body_bytes` by default, and
    SlowClientError for one that takes `client_timeout` seconds longer than its length at the slowest rate,
    MemoryFullError when too many bytes are held already.
    """
    context: RequestContext = request.state.context
    limit = service.settings.max_body_bytes if limit is None else limit
    too_large = TooLargeError(
        f"The body is larger than {limit} bytes, which is the limit; send fewer or smaller inputs."
    )
    announced = request.headers.get("content-length", "")
    # A length of many digits is over any limit, and int() refuses very long ones.
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limit):
        raise too_large
    # It gives its bytes away without a copy: joining many parts of 30 MB held the event loop for 50 ms.
    body = BytesIO()
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
                body.write(chunk)
                patience.reschedule(last_moment + received / SLOWEST_BYTES_PER_SECOND)
    except TimeoutError as error:
        raise SlowClientError(
            f"Only {received} bytes of the body came in time; send it faster than {SLOWEST_BYTES_PER_SECOND}"
            " bytes a second."
        ) from error
    context.body_bytes = received
    context.since = time.monotonic()
    context.deadline = context.since + service.settings.request_timeout
    return body.getvalue()


async def answered_in_json(
    request: Request, service: Service, answer: Callable[[bytes], Coroutine[Any, Any, str]]
) -> Response:
    """Responds with the JSON that `answer` makes of the body. Raises as `read_body` and `while_awaited`."""
    body = await read_body(request, service)
    written = await while_awaited(request, service, answer(body))
    return Response(written, media_type="application/json")


async def while_awaited(request: Request, service: Service, work: Coroutine[Any, Any, T]) -> T:
    """Returns the result of `work`, which is cancelled when the caller hangs up or the deadline passes.

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
