"""Around every request: its id, its log line and its metrics."""

from __future__ import annotations

import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mass_serve.server.serving.caller import caller_at
from mass_serve.server.serving.request_context import RequestContext, sane_request_id, sane_trace_id
from mass_serve.server.serving.service import Service

# What a log line tells of a path.
LONGEST_LOGGED_PATH = 512
LONGEST_LOGGED_METHOD = 32
HEALTH = ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready")
PROBES = (*HEALTH, "/metrics")

log = structlog.get_logger(__name__)


class RequestMiddleware:
    """Plain ASGI, because wrapping the response body in a stream would cost more than it gives."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; probes are answered without being counted or logged as traffic."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = _context(scope)
        scope.setdefault("state", {})["context"] = context
        with structlog.contextvars.bound_contextvars(**context.identity()):
            if scope["path"] in PROBES:
                await self._answer(scope, receive, send, context)
            else:
                try:
                    await self._observed(scope, receive, send, context)
                finally:
                    self._service.release(context)

    async def _observed(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        """Serves a request that is traffic, tells the observer of it, and logs it."""
        observer = self._service.observer
        started = time.monotonic()
        with observer.request_in_progress():
            status = await self._answer(scope, receive, send, context)
        seconds = time.monotonic() - started
        observer.key_used(context.caller.key_name)
        observer.request_answered(_protocol(scope["method"], scope["path"]), status, seconds)
        _log_request(scope, status, seconds, context)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> int:
        """Runs the application and returns the status that was sent."""
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = context.request_id
                if self._service.draining:
                    headers["Connection"] = "close"  # moves the caller's next request to another server
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            status = 500  # of an answer that had begun; what went wrong is in the log
        return status


def _protocol(method: str, path: str) -> str:
    if path == "/v1/models" or path.startswith("/v1/models/"):
        return "kserve_v1"
    if path.startswith("/v1/"):
        return "v1"
    if path == "/v2" or path.startswith("/v2/"):
        return "v2"
    if (
        path in ("/predict", "/embed", "/info")
        or path.startswith("/models/")
        or (path == "/" and method == "POST")
    ):
        return "hugging_face"
    return "other"


def _context(scope: Scope) -> RequestContext:
    headers = Headers(scope=scope)
    return RequestContext(
        sane_request_id(headers.get("x-request-id", "")),
        caller_at(*(scope.get("client") or [None])[:1]),
        sane_trace_id(headers.get("traceparent", "")),
    )


def _log_request(scope: Scope, status: int, seconds: float, context: RequestContext) -> None:
    """Logs one line: never a header, because those may hold callers' tokens."""
    log.info(
        "request",
        method=scope["method"][:LONGEST_LOGGED_METHOD],
        path=scope["path"][:LONGEST_LOGGED_PATH],
        status=status,
        seconds=round(seconds, 6),
        **context.told(),
    )
