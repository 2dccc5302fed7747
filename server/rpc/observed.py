"""Around every call and every request of a stream: what is known of it, its metrics, span and log line."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import unquote

import structlog
from grpc.aio import ServicerContext

from mass_serve.server.errors import ServiceError
from mass_serve.server.rpc.statuses import code_of_status
from mass_serve.server.serving.caller import caller_at
from mass_serve.server.serving.request_context import RequestContext, sane_request_id, sane_trace_id
from mass_serve.server.serving.service import Service
from mass_serve.server.serving.spans import Spans

PROTOCOL = "grpc"
BEARER = "bearer "

Metadata = Mapping[str, Sequence[str]]

log = structlog.get_logger(__name__)


class Observed:
    """Tells the observer, the traces and the log of what is answered."""

    def __init__(self, service: Service, spans: Spans) -> None:
        self._service = service
        self._spans = spans

    async def answer(
        self, name: str, given: Metadata, context: RequestContext, answer: Callable[[], Awaitable[int]]
    ) -> None:
        """Runs what answers a request and returns the status of HTTP that says how."""
        observer = self._service.observer
        started = time.monotonic()
        with self._spans.call(name, given, context) as outcome:
            with observer.request_in_progress():
                outcome.status = status = await answer()
            outcome.attributes = _told_of(name, status)
            seconds = time.monotonic() - started
            observer.key_used(context.caller.key_name)
            observer.request_answered(PROTOCOL, status, seconds)
            # Never metadata: they may hold callers' tokens.
            log.info("request", method=name, status=status, seconds=round(seconds, 6), **context.told())

    def count(self, error: ServiceError, context: RequestContext) -> int:
        """Counts a refusal, and returns its status."""
        self._service.count_refusal(error, context)
        return error.status


def new_context(given: Metadata, rpc: ServicerContext) -> RequestContext:
    """Returns what is known of a call when it comes."""
    return RequestContext(
        sane_request_id(_first(given, "x-request-id")),
        caller_at(_host(rpc.peer())),
        sane_trace_id(_first(given, "traceparent")),
    )


def metadata_of(rpc: ServicerContext) -> Metadata:
    """Returns the caller's metadata in text, by name."""
    given: dict[str, list[str]] = {}
    for name, value in rpc.invocation_metadata() or ():
        if isinstance(value, str):
            given.setdefault(name, []).append(value)
    return given


def keys_in(given: Metadata) -> list[str]:
    """Returns the keys that the caller presents, in either way or in both."""
    bearers = [text for text in given.get("authorization", []) if text.lower().startswith(BEARER)]
    keys = [*(text[len(BEARER) :].strip() for text in bearers), *given.get("x-api-key", [])]
    return [key for key in keys if key]


def _told_of(name: str, status: int) -> dict[str, str | int]:
    """Returns what a call's span tells of it, in OpenTelemetry's words."""
    service, _, method = name.partition("/")
    code = code_of_status(status).value[0]
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, "rpc.grpc.status_code": code}


def _first(given: Metadata, name: str) -> str:
    """Returns the first value of that name, an empty text where there is none."""
    return next(iter(given.get(name, ())), "")


def _host(peer: str) -> str | None:
    """Returns the address of `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`, None for any other."""
    family, _, address = unquote(peer).partition(":")
    host = address.rpartition(":")[0]
    return host.strip("[]") if family in ("ipv4", "ipv6") else None
