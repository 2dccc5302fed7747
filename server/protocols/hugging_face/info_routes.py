"""GET /info: what text-embeddings-inference's clients ask of the server before all else."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from mass_serve.engine import ServingEngine
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.server.protocols.hugging_face.server_info import ServerInfo, server_info
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.settings import Settings
from mass_serve.server.web.receiving import FOR_INFERENCE, CurrentContext, CurrentService
from mass_serve.server.web.responses import error_responses

router = APIRouter(tags=["hugging_face"], dependencies=FOR_INFERENCE)


@router.get("/info", response_model=ServerInfo, responses=error_responses(400, 401, 404, 503))
async def info(service: CurrentService, context: CurrentContext) -> Response:
    """What text-embeddings-inference says of itself, of all tasks that texts are routed among."""
    return await _info(AUTO, service, context)


@router.get("/models/{task}/info", response_model=ServerInfo, responses=error_responses(400, 401, 404, 503))
async def info_of_task(task: str, service: CurrentService, context: CurrentContext) -> Response:
    """The same of one task, or of all if the task is `auto`."""
    return await _info(task, service, context)


async def _info(task: str, service: Service, context: RequestContext) -> Response:
    # On a thread: a store may have a million labels.
    turn = context.caller.turn()
    written = await service.parsers.run(turn, 0, _written, task, service.engine, service.settings)
    return Response(written, media_type="application/json")


def _written(task: str, engine: ServingEngine, settings: Settings) -> str:
    return server_info(task, engine, settings).model_dump_json()
