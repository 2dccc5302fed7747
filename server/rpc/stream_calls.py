"""Streams of requests for inference, each of which is answered as if it had come alone.

A stream is for jobs: where there is no room for one of its requests, that request waits, and with it the
client, within the time that a request has. What cannot be answered is told in its place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from grpc.aio import ServicerContext

from mass_serve.server.errors import (
    INTERNAL_ERROR,
    ClientGoneError,
    DeadlineError,
    QueueFullError,
    ServiceError,
)
from mass_serve.server.rpc.method import Method
from mass_serve.server.rpc.observed import Metadata, Observed, keys_in
from mass_serve.server.rpc.open_inference_pb2 import ModelStreamInferResponse
from mass_serve.server.rpc.streams import Stream
from mass_serve.server.serving.entrance import let_in
from mass_serve.server.serving.request_context import RequestContext, sane_request_id
from mass_serve.server.serving.service import Service

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Asked:
    """A request of a stream, whose message is held."""

    message: bytes
    context: RequestContext
    refusal: ServiceError | None  # there was no room for the message, which is gone


class StreamCalls:
    """Serves streams of one event loop."""

    def __init__(self, service: Service, observed: Observed) -> None:
        self.closing = asyncio.Event()
        self._service = service
        self._observed = observed

    async def serve(
        self, method: Method, rpc: ServicerContext, given: Metadata, context: RequestContext
    ) -> None:
        """Answers all requests of a stream. Raises ServiceError where it is refused or ended."""
        if method.requires is not None:
            await let_in(self._service, context, keys_in(given), method.requires)
        held: dict[str, RequestContext] = {}
        admit = partial(self._admitted, method, context, held)
        answer = partial(self._answered, method, given, held)
        idle, patience = self._service.settings.idle_timeout, self._service.settings.client_timeout
        try:
            await Stream[_Asked](rpc, admit, answer, idle, patience, self.closing).run()
        finally:  # a stream that is cancelled leaves requests behind which nobody has begun to answer
            for one in held.values():
                self._service.release(one)

    async def _admitted(
        self, method: Method, stream: RequestContext, held: dict[str, RequestContext], message: bytes
    ) -> _Asked:
        """Waits until a message may be held; no other of the stream is read meanwhile."""
        context = RequestContext(sane_request_id(""), stream.caller, stream.trace_id)
        held[context.request_id] = context
        context.deadline = context.since + method.timeout
        context.body_bytes = len(message)

        async def hold() -> None:
            self._service.hold(len(message), context)

        try:
            await _patiently(hold, context.deadline)
        except ServiceError as refusal:
            return _Asked(b"", context, refusal)
        return _Asked(message, context, None)

    async def _answered(
        self, method: Method, given: Metadata, held: dict[str, RequestContext], asked: _Asked
    ) -> bytes:
        """Returns the message that answers a request, or says why there is no answer."""
        reply, context = ModelStreamInferResponse(), asked.context
        with structlog.contextvars.bound_contextvars(**context.identity()):
            answer = partial(self._fill, reply, method, given, asked)
            try:
                await self._observed.answer(method.name, given, context, answer)
            finally:
                self._service.release(held.pop(context.request_id))
        if _cancelled():  # `_fill` has counted it
            raise asyncio.CancelledError
        serialised: bytes = reply.SerializeToString()
        return serialised

    async def _fill(
        self, reply: ModelStreamInferResponse, method: Method, given: Metadata, asked: _Asked
    ) -> int:
        """Writes an answer, or what is wrong, into a reply. Returns the status of HTTP that says how."""
        try:
            if asked.refusal is not None:
                raise asked.refusal
            attempt = partial(self._attempt, method, given, asked)
            reply.infer_response.ParseFromString(await _patiently(attempt, asked.context.deadline))
        except ServiceError as error:
            reply.error_message = str(error)
            return self._observed.count(error, asked.context)
        except asyncio.CancelledError:  # nobody hears an answer any more
            return self._observed.count(ClientGoneError("The caller has ended the stream."), asked.context)
        except Exception:
            log.exception("unexpected error", method=method.name)
            reply.error_message = INTERNAL_ERROR
            return 500
        return 200

    async def _attempt(self, method: Method, given: Metadata, asked: _Asked) -> bytes:
        """Answers a request in a context of its own: what one attempt holds is gone before the next."""
        of = asked.context
        context = RequestContext(of.request_id, of.caller, of.trace_id, body_bytes=of.body_bytes)
        context.since, context.deadline = of.since, of.deadline
        try:
            if method.requires is not None:  # a key may have been taken out meanwhile
                await let_in(self._service, context, keys_in(given), method.requires)
            self._service.refuse_when_full(context.caller)
            async with asyncio.timeout(of.deadline - time.monotonic()):
                return await method.answer(asked.message, context)
        except TimeoutError as error:
            raise DeadlineError.after(method.timeout) from error
        finally:
            of.images, of.stage_seconds = context.images, context.stage_seconds
            self._service.release(context)


async def _patiently(attempt: Callable[[], Awaitable[T]], deadline: float) -> T:
    """Tries again as often as there is no room, and as long as the deadline allows."""
    while True:
        try:
            return await attempt()
        except QueueFullError as error:
            pause = error.retry_after_seconds or 0
            if time.monotonic() + pause >= deadline:
                raise
        await asyncio.sleep(pause)


def _cancelled() -> bool:
    """Tells whether the stream of this request was ended; its call takes no more answers."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
