"""Around every call: its id, key, time limits, log line and metrics, and an answer even to the unexpected."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

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
from mass_serve.server.rpc.room import Room
from mass_serve.server.rpc.statuses import code_of, code_of_status, retry_metadata
from mass_serve.server.serving.caller import caller_at
from mass_serve.server.serving.entrance import Requirement, let_in
from mass_serve.server.serving.request_context import RequestContext, sane_request_id, sane_trace_id
from mass_serve.server.serving.service import Service
from mass_serve.server.serving.spans import Spans

PROTOCOL = "grpc"
BEARER = "bearer "
# A client ends a call at its deadline by itself, and may be that much before our clock.
DEADLINE_TOLERANCE = 0.1
ENDED_WITHIN = 0.1

Metadata = Mapping[str, Sequence[str]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Method:
    """A method of the service."""

    name: str  # with its service: "inference.GRPCInferenceService/ModelInfer"
    answer: Callable[[bytes, RequestContext], Awaitable[bytes]]  # of a message
    requires: Requirement | None = None  # None: a probe, which needs no key and is no traffic
    takes_inputs: bool = False
    timeout: float = math.inf  # seconds


class Calls:
    """Makes handlers of methods."""

    def __init__(self, service: Service, spans: Spans) -> None:
        self._service = service
        self._spans = spans
        self._room = Room(service.settings.max_connections)

    @property
    def open(self) -> int:
        """How many calls are being answered."""
        return self._room.open

    def handler(self, method: Method) -> grpc.RpcMethodHandler:
        """Returns what gRPC runs for each call of a method.

        A unary call is, on the wire, a stream of one message each way. As such a call is refused before its
        message is read, and reading has a time limit.
        """

        async def serve(_: object, rpc: ServicerContext) -> None:
            await self._serve(method, rpc)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, method: Method, rpc: ServicerContext) -> None:
        given = _given(rpc)
        context = RequestContext(
            sane_request_id(_first(given, "x-request-id")),
            caller_at(_host(rpc.peer())),
            sane_trace_id(_first(given, "traceparent")),
        )
        rpc.set_trailing_metadata((("x-request-id", context.request_id),))
        with structlog.contextvars.bound_contextvars(**context.identity()):
            try:
                if method.requires is None:
                    await self._answer(method, rpc, given, context)
                else:
                    await self._observed(method, rpc, given, context)
            finally:
                self._service.release(context)

    async def _observed(
        self, method: Method, rpc: ServicerContext, given: Metadata, context: RequestContext
    ) -> None:
        """Serves a call that is traffic, tells the observer of it, and logs it."""
        observer = self._service.observer
        started = time.monotonic()
        with self._spans.call(method.name, given, context) as outcome:
            with observer.request_in_progress():
                outcome.status = status = await self._answer(method, rpc, given, context)
            outcome.attributes = _told_of(method.name, status)
            seconds = time.monotonic() - started
            observer.key_used(context.caller.key_name)
            observer.request_answered(PROTOCOL, status, seconds)
            # Never metadata: they may hold callers' tokens.
            told = context.told()
            log.info("request", method=method.name, status=status, seconds=round(seconds, 6), **told)

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
            return self._count(self._given_up(deadline))
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
            await let_in(self._service, context, _keys(given), method.requires)
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
        return self._count(error)

    def _count(self, error: ServiceError) -> int:
        if error.reason is not None:
            self._service.observer.request_rejected(error.reason)
        return error.status

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


def _given(rpc: ServicerContext) -> Metadata:
    """Returns the caller's metadata in text, by name."""
    given: dict[str, list[str]] = {}
    for name, value in rpc.invocation_metadata() or ():
        if isinstance(value, str):
            given.setdefault(name, []).append(value)
    return given


def _told_of(name: str, status: int) -> dict[str, str | int]:
    """Returns what a call's span tells of it, in OpenTelemetry's words."""
    service, _, method = name.partition("/")
    code = code_of_status(status).value[0]
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, "rpc.grpc.status_code": code}


def _first(given: Metadata, name: str) -> str:
    """Returns the first value of that name, an empty text where there is none."""
    return next(iter(given.get(name, ())), "")


def _keys(given: Metadata) -> list[str]:
    """Returns the keys that the caller presents, in either way or in both."""
    bearers = [text for text in given.get("authorization", []) if text.lower().startswith(BEARER)]
    keys = [*(text[len(BEARER) :].strip() for text in bearers), *given.get("x-api-key", [])]
    return [key for key in keys if key]


def _host(peer: str) -> str | None:
    """Returns the address of `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`, None for any other."""
    family, _, address = unquote(peer).partition(":")
    host = address.rpartition(":")[0]
    return host.strip("[]") if family in ("ipv4", "ipv6") else None
