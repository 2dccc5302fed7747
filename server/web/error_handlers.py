"""The one place where exceptions become HTTP responses."""

from __future__ import annotations

from http import HTTPMethod, HTTPStatus
from traceback import clear_frames

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from mass_serve.server.errors import ClientGoneError, QueueFullError, ServiceError, first_problem
from mass_serve.server.serving.service import Service
from mass_serve.server.web.responses import error_response


def install_error_handlers(app: FastAPI, service: Service) -> None:
    """Maps every exception that a route can raise to its response."""

    async def on_service_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        if type(error) is QueueFullError:  # others have waited already
            # The body may be in memory, in the frames that the exception has come through.
            clear_frames(error.__traceback__)
            await service.before_refusal(request.state.context)
        service.count_refusal(error, request.state.context)
        return error_response(error.status, str(error), error.headers())

    async def on_disconnect(request: Request, _: Exception) -> Response:
        return await on_service_error(request, ClientGoneError("The client closed the connection."))

    async def on_invalid_parameters(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(400, first_problem(error.errors()))

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": ", ".join(_allowed_methods(request))}
        return error_response(error.status_code, _explain(request, error), headers)

    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(RequestValidationError, on_invalid_parameters)
    app.add_exception_handler(HTTPException, on_http_exception)


def _explain(request: Request, error: HTTPException) -> str:
    """Returns a sentence for an error that the framework raises by itself."""
    path = ascii(request.url.path)[1:-1][:200]
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"There is nothing at {path}; /openapi.json lists what there is."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{path} does not take {request.method[:32]}; use {' or '.join(_allowed_methods(request))}."
    return str(error.detail)


def _allowed_methods(request: Request) -> list[str]:
    """Returns the methods of all routes at a path; the framework names those of the first one only."""
    return [
        method.value
        for method in HTTPMethod
        if any(
            route.matches({**request.scope, "method": method.value})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
