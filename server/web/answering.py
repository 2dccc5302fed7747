"""An answer even to the unexpected: to callers by a wrong name, at the end of a drain, and to what fails.

It is within CORS, whose headers a browser looks for on errors too before it shows them to a page.
"""

from __future__ import annotations

import asyncio

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mass_serve.server.errors import INTERNAL_ERROR, DrainingError
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.web.hosts import AllowedHosts
from mass_serve.server.web.middleware import HEALTH, LONGEST_LOGGED_PATH
from mass_serve.server.web.responses import error_response

HTTP_VERSIONS = ("1.0", "1.1")

log = structlog.get_logger(__name__)


class AnsweringMiddleware:
    """Plain ASGI, within `RequestMiddleware`, which has made the request's context."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._hosts = AllowedHosts.of(service.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request. Raises only where an answer has begun, which nothing can mend."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            answer = self._refusal(scope) or self._app
            await answer(_as_get(scope), receive, noted)
        except asyncio.CancelledError:
            if begun:
                raise
            # The drain is over, and whoever waits until now is told so rather than cut off.
            ended = DrainingError("The server is shutting down; send the request to another one.")
            context: RequestContext = scope["state"]["context"]
            self._service.count_refusal(ended, context)
            await error_response(ended.status, str(ended), ended.headers())(scope, receive, send)
        except Exception:
            log.exception("unexpected error", path=scope["path"][:LONGEST_LOGGED_PATH])
            if begun:
                raise
            await error_response(500, INTERNAL_ERROR)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """Returns what answers a request that is not looked at, None for any other."""
        if scope["http_version"] not in HTTP_VERSIONS:
            text = f"HTTP/{scope['http_version']} is not spoken here; use HTTP/1.1."
            return error_response(505, text, {"Connection": "close"})
        # An orchestrator asks for a process's health by an address that nobody has listed.
        if scope["path"] in HEALTH or (name := self._hosts.refused(scope)) is None:
            return None
        text = f"This server is not called {name[:80]!a}; the setting allowed_hosts says what it is called."
        return error_response(421, text)


def _as_get(scope: Scope) -> Scope:
    """Treats HEAD as GET; the HTTP server leaves the body out by itself."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
