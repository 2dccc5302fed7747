"""Around every call: its id, key and time limits, and an answer even to the unexpected."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import ExitStack, suppress
from functools import partial

import grpc
import structlog
from grpc.aio import EOF, ServicerContext

from mass_serve.server.errors import (
    INTERNAL_ERROR,
    BadRequestError,
    ClientGoneError,
    DeadlineError,
    DrainingError,
    QueueFullError,
    ServiceError,
    SlowClientError,
    TooLargeError,
)
from mass_serve.server.rpc.method import Method
from mass_serve.server.rpc.observed import Metadata, Observed, keys_in, metadata_of, new_context
from mass_serve.server.rpc.room import Room
from mass_serve.server.rpc.statuses import code_of, retry_metadata
from mass_serve.server.rpc.stream_calls import StreamCalls
from mass_serve.server.serving.entrance import let_in
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.serving.spans import Spans

# A client ends a call at its deadline by itself, and may be that much before our clock.
DEADLINE_TOLERANCE = 0.1
ENDED_WITHIN = 0.1

log = structlog.get_logger(__name__)


class Calls:
    """Makes handlers of methods."""

    def __init__(self, service: Service, spans: Spans) -> None:
        self._service = service
        self._observed = Observed(service, spans)
        self._room = Room(service.settings.max_connections)
        self._streams = StreamCalls(service, self._observed)

    @property
    def open(self) -> int:
        """How many calls are being answered."""
        return self._room.open

    def end_streams(self) -> None:
        """Reads no more requests of streams, which end when those that there are were answered."""
        self._streams.closing.set()

    def handler(self, method: Method) -> grpc.RpcMethodHandler:
        """Returns what gRPC runs for each call of a method.

        A unary call is, on the wire, a stream of one message each way. As such a call is refused before its
        message is read, and reading has a time limit.
        """

        async def serve(_: object, rpc: ServicerContext) -> None:
            await self._serve(method, rpc)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, method: Method, rpc: ServicerContext) -> None:
        given = metadata_of(rpc)
        context = new_context(given, rpc)
        rpc.set_trailing_metadata((("x-request-id", context.request_id),))
        with structlog.contextvars.bound_contextvars(**context.identity()):
            answer = partial(self._answer, method, rpc, given, context)
            try:
                if method.streams:
                    await self._stream(method, rpc, given, context)
                elif method.requires is None:
                    await answer()
                else:
                    await self._observed.answer(method.name, given, context, answer)
            finally:
                self._service.release(context)

    async def _stream(
        self, method: Method, rpc: ServicerContext, given: Metadata, context: RequestContext
    ) -> None:
        """Serves a stream, whose requests are observed one by one; as a whole it is only where it fails."""
        # The status comes behind all answers; until they are taken up it is one of its caller's calls.
        still_open = ExitStack()
        rpc.add_done_callback(lambda _: still_open.close())
        try:
            still_open.enter_context(self._room.call(context.caller))
            place = still_open.enter_context(ExitStack())
            place.enter_context(self._room.stream(context.caller))
            try:
                await self._streams.serve(method, rpc, given, context)
            finally:
                with suppress(QueueFullError):
                    still_open.enter_context(self._room.ended_stream(context.caller))
                    place.close()
        except ServiceError as error:
            refuse = partial(self._refuse, rpc, error, context)
            await self._observed.answer(method.name, given, context, refuse)

    async def _answer(
        self, method: Method, rpc: ServicerContext, given: Metadata, context: RequestContext
    ) -> int:
        """Answers a call, and returns the status of HTTP that says how."""
        remaining = rpc.time_remaining()
        deadline = time.monotonic() + (math.inf if remaining is None else remaining)
        try:
            with self._room.call(context.caller):
                reply = await self._reply(method, rpc, given, context, deadline)
                self._service.release(context)  # whoever is slow to read keeps no more than its answer
                await rpc.write(reply)
        except ServiceError as error:
            return await self._refuse(rpc, error, context)
        except asyncio.CancelledError:  # nobody hears an answer any more
            return self._observed.count(self._given_up(deadline), context)
        except Exception:
            log.exception("unexpected error", method=method.name)
            rpc.set_code(grpc.StatusCode.INTERNAL)
            rpc.set_details(INTERNAL_ERROR)
            return 500
        return 200

    async def _reply(
        self, method: Method, rpc: ServicerContext, given: Metadata, context: RequestContext, deadline: float
    ) -> bytes:
        """Returns the answer's message. As over HTTP, its time begins when the request's is there."""
        if method.requires is not None:
            await let_in(self._service, context, keys_in(given), method.requires)
        if method.takes_inputs:
            self._service.refuse_when_full(context.caller)
        message = await self._message(rpc, context)
        context.since = time.monotonic()
        context.deadline = min(deadline, context.since + method.timeout)
        left = context.deadline - context.since
        try:
            async with asyncio.timeout(None if math.isinf(left) else left) as patience:
                return await method.answer(message, context)
        except TimeoutError as error:
            if not patience.expired():
                raise
            raise DeadlineError.after(round(left, 3)) from error

    async def _message(self, rpc: ServicerContext, context: RequestContext) -> bytes:
        """Reads the message. Raises SlowClientError, TooLargeError and BadRequestError."""
        seconds, limit = self._service.settings.client_timeout, self._service.settings.max_body_bytes
        try:
            async with asyncio.timeout(seconds), self._room.reading(context.caller):
                message = await rpc.read()
        except TimeoutError as error:
            raise SlowClientError(f"The message did not come within {seconds:g} seconds.") from error
        if message is EOF:
            await _end_of_too_large(limit)
            raise BadRequestError("The call has no message; send one.")
        self._service.hold(len(message), context)
        context.body_bytes = len(message)
        read: bytes = message
        return read

    async def _refuse(self, rpc: ServicerContext, error: ServiceError, context: RequestContext) -> int:
        if type(error) is QueueFullError:  # others have waited already
            await self._service.before_refusal(context)
        rpc.set_code(code_of(error))
        rpc.set_details(str(error))
        rpc.set_trailing_metadata((("x-request-id", context.request_id), *retry_metadata(error)))
        return self._observed.count(error, context)

    def _given_up(self, deadline: float) -> ServiceError:
        """Returns why a call was ended from outside: by its deadline, the end of the drain, or the caller."""
        if time.monotonic() >= deadline - DEADLINE_TOLERANCE:
            return DeadlineError("The caller's deadline has passed.")
        if self._service.draining:
            return DrainingError("The server is shutting down; send the request to another one.")
        return ClientGoneError("The caller has cancelled the call.")


async def _end_of_too_large(limit: int) -> None:
    """Raises TooLargeError where gRPC has refused a message by itself, and with it ended the call.

    It shows no message then, as where there is none, and a moment later it cancels what serves the call.
    """
    try:
        await asyncio.sleep(ENDED_WITHIN)
    except asyncio.CancelledError as error:
        raise TooLargeError(f"The message is larger than {limit} bytes, which is the limit.") from error
