"""The Open Inference Protocol's repository extension: loading and unloading for whoever has an admin key."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.open_inference.repository import listed_models, load_model, unload_model
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.web.openapi import REPOSITORY
from mass_serve.server.web.receiving import (
    FOR_ADMINS,
    CurrentContext,
    CurrentService,
    read_body,
    while_awaited,
)
from mass_serve.server.web.responses import error_responses

router = APIRouter(prefix="/v2/repository", tags=[REPOSITORY], dependencies=FOR_ADMINS)

# Options are a few names.
LONGEST_BODY = 1 << 20
RESPONSES = error_responses(400, 401, 404, 408, 413, 503, 504)


@router.post("/index", responses=RESPONSES)
async def repository_index(
    request: Request, service: CurrentService, context: CurrentContext
) -> list[dict[str, str]]:
    """All models, with those that were unloaded; `{"ready": true}` asks for those in service only."""
    only_ready = (await _parameters(request, service, context)).get("ready", False)
    return listed_models(service, only_ready is True)


@router.post("/models/{model}/load", operation_id="load_model", response_class=Response, responses=RESPONSES)
async def load_into_service(
    model: str, request: Request, service: CurrentService, context: CurrentContext
) -> Response:
    """Serves the newest revision of the store, with this task even if it was unloaded; `auto`: as it is.

    Answers when that revision serves. If it cannot be loaded, the old one serves on.
    """
    if (await _parameters(request, service, context)).get("parameters"):
        raise BadRequestError("Models are loaded as the store has them; send no parameters.")
    await load_model(service, model)
    return Response()


@router.post(
    "/models/{model}/unload", operation_id="unload_model", response_class=Response, responses=RESPONSES
)
async def unload_from_service(
    model: str, request: Request, service: CurrentService, context: CurrentContext
) -> Response:
    """Serves without a task until it is loaded again or the server is restarted; the store keeps it."""
    await _parameters(request, service, context)
    await unload_model(service, model)
    return Response()


async def _parameters(request: Request, service: Service, context: RequestContext) -> dict[str, Any]:
    """Reads the JSON object in the body, which may be empty. Raises BadRequestError, DeadlineError."""
    body = await read_body(request, service, LONGEST_BODY)
    parsing = service.parsers.run(context.caller.turn(), len(body), _json_object, body or b"{}")
    return await while_awaited(request, service, parsing)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("The body must be empty or a JSON object.") from error
    if not isinstance(content, dict):
        raise BadRequestError("The body must be empty or a JSON object.")
    return content
