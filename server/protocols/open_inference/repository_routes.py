"""The Open Inference Protocol's repository extension: loading and unloading for whoever has an admin key."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from mass_serve.engine import ServingEngine
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.model_store.storage.files import without_credentials
from mass_serve.server.errors import BadRequestError, LoadTimeoutError, NotFoundError
from mass_serve.server.protocols.open_inference.models import find_model, model_names
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.web.receiving import (
    FOR_ADMINS,
    CurrentContext,
    CurrentService,
    read_body,
    while_awaited,
)
from mass_serve.server.web.responses import error_responses

router = APIRouter(prefix="/v2/repository", dependencies=FOR_ADMINS)

# Options are a few names.
LONGEST_BODY = 1 << 20
NOT_LOADED = "The store could not be loaded, the old revision serves on: "
RESPONSES = error_responses(400, 401, 404, 408, 413, 503, 504)


@router.post("/index", responses=RESPONSES)
async def index(request: Request, service: CurrentService, context: CurrentContext) -> list[dict[str, str]]:
    """All models, with those that were unloaded; `{"ready": true}` asks for those in service only."""
    only_ready = (await _parameters(request, service, context)).get("ready", False)
    engine = service.engine
    models = [find_model(engine, name, None) for name in model_names(engine)]
    listed = [{"name": m.name, "version": m.version, "state": "READY", "reason": ""} for m in models]
    if only_ready is True:
        return listed
    gone = {"version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
    return listed + [{"name": name} | gone for name in engine.left_out]


@router.post("/models/{model}/load", response_class=Response, responses=RESPONSES)
async def load(model: str, request: Request, service: CurrentService, context: CurrentContext) -> Response:
    """Serves the newest revision of the store, with this task even if it was unloaded; `auto`: as it is.

    Answers when that revision serves. If it cannot be loaded, the old one serves on.
    """
    if (await _parameters(request, service, context)).get("parameters"):
        raise BadRequestError("Models are loaded as the store has them; send no parameters.")
    asked = service.store.reload() if model == AUTO else service.store.load_task(model)
    engine = await _loaded(asked, service)
    if model != AUTO and model not in engine.tasks:
        raise NotFoundError(f"There is no task {model[:80]!a} in the store.")
    return Response()


@router.post("/models/{model}/unload", response_class=Response, responses=RESPONSES)
async def unload(model: str, request: Request, service: CurrentService, context: CurrentContext) -> Response:
    """Serves without a task until it is loaded again or the server is restarted; the store keeps it."""
    await _parameters(request, service, context)
    if model == AUTO:
        raise BadRequestError("'auto' is the router's choice among the tasks; unload a task.")
    await _loaded(service.store.unload_task(model), service)
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


async def _loaded(future: Future[ServingEngine], service: Service) -> ServingEngine:
    """Returns the engine that then serves. Raises BadRequestError where it could not be loaded.

    Raises LoadTimeoutError after `load_timeout`, and not after `request_timeout`: a good load of a large
    store takes longer than a request may.
    """
    limit = service.settings.load_timeout
    try:
        async with asyncio.timeout(limit):
            # Who asked may leave; the load goes on.
            return await asyncio.shield(asyncio.wrap_future(future))
    except TimeoutError as error:
        if future.done():  # a read of the store has timed out by itself
            raise BadRequestError(f"{NOT_LOADED}{without_credentials(str(error))}") from error
        raise LoadTimeoutError.after(limit) from error
    # A driver of a remote store may raise anything, and a device may have no memory for a second engine.
    except (StoreError, ValueError, ArithmeticError, OSError, RuntimeError, MemoryError) as error:
        raise BadRequestError(f"{NOT_LOADED}{without_credentials(str(error))}") from error
