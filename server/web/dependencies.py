"""What the routes take from the application and from the request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from mass_serve.server.serving.requests import RequestContext
from mass_serve.server.serving.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _context(request: Request) -> RequestContext:
    context: RequestContext = request.state.context
    return context


CurrentService = Annotated[Service, Depends(_service)]
CurrentContext = Annotated[RequestContext, Depends(_context)]


def _keys(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    header: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
) -> list[str]:
    """The keys that the caller presents, in either way or in both."""
    given = [bearer.credentials if bearer else None, header]
    return [key for key in given if key]


PresentedKeys = Annotated[list[str], Depends(_keys)]


def _require_inference(service: CurrentService, keys: PresentedKeys) -> None:
    service.access.require_inference(keys)


def _require_admin(service: CurrentService, keys: PresentedKeys) -> None:
    service.access.require_admin(keys)


def _require_room(service: CurrentService) -> None:
    service.batcher.refuse_when_full()


# For routes that take images: an overloaded server refuses before it reads any.
IF_THERE_IS_ROOM = [Depends(_require_room)]
# For routers: checked before a body is read.
FOR_INFERENCE = [Depends(_require_inference)]
FOR_ADMINS = [Depends(_require_admin)]
