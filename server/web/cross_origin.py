"""Pages of other origins that may call the server from a browser: CORS, where the setting names any.

app.add_middleware(CrossOrigin, origins=["https://app.example.com"])
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from mass_serve.server.web.responses import error_response

METHODS = ("GET", "HEAD", "POST")
# What callers of the protocols send beside what a browser lets every page send, and what they read.
REQUEST_HEADERS = (
    "Authorization",
    "X-API-Key",
    "X-Request-Id",
    "Content-Type",
    "Content-Encoding",
    "Inference-Header-Content-Length",
    "traceparent",
    "tracestate",
)
RESPONSE_HEADERS = ("X-Request-Id", "Retry-After", "Inference-Header-Content-Length")
REMEMBERED_SECONDS = 600
OF_THE_BODY = ("content-length", "content-type")


class CrossOrigin(CORSMiddleware):
    """Starlette's, whose refusals have the shape of all errors. A browser sends no cookies along."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=RESPONSE_HEADERS,
            max_age=REMEMBERED_SECONDS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answers whether a page may send a request."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        origin = request_headers["origin"][:80]
        text = (
            f"A page of {origin!a} may not send this; the setting cors_origins lists whose pages may, by"
            f" {', '.join(METHODS)}, with the headers {', '.join(REQUEST_HEADERS)}."
        )
        kept = {name: value for name, value in response.headers.items() if name not in OF_THE_BODY}
        return error_response(response.status_code, text, kept)
