"""GET /livez, /readyz, and the same of the Open Inference Protocol: what an orchestrator asks. Public."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from mass_serve.model_store.storage.files import without_credentials
from mass_serve.server.errors import DrainingError, NotReadyError, ServiceError, WorkerDiedError
from mass_serve.server.serving.service import Service
from mass_serve.server.web.receiving import CurrentService
from mass_serve.server.web.responses import error_response, error_responses, readiness

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The state of the process."""

    status: str
    store_revision: str | None = Field(default=None, description="what serves")
    load_error: str | None = Field(default=None, description="why a newer revision of the store does not")


@router.get("/livez", response_model=Health, responses=error_responses(503))
async def livez(service: CurrentService) -> JSONResponse:
    """200 unless only a restart can help. Loading and draining are alive."""
    if not service.alive:
        return _told(WorkerDiedError("The server cannot answer any more and is about to end; restart it."))
    return JSONResponse({"status": "alive"})


@router.get("/readyz", response_model=Health, responses=error_responses(503))
async def readyz(service: CurrentService) -> JSONResponse:
    """200 while requests should be sent here: loaded, healthy and not draining.

    `load_error` tells why a newer revision of the store is not the one that serves.
    """
    if not service.ready:
        return _told(_why_not_ready(service))
    trouble = service.store.trouble
    health = Health(
        status="ready",
        store_revision=service.engine.store_revision,
        load_error=None if trouble is None else without_credentials(trouble),
    )
    return JSONResponse(health.model_dump(exclude_none=True))


@router.get("/v2/health/live", responses=error_responses(503))
async def server_live(service: CurrentService) -> JSONResponse:
    """200 unless only a restart can help."""
    return readiness({"live": service.alive}, service.alive)


@router.get("/v2/health/ready", responses=error_responses(503))
async def server_ready(service: CurrentService) -> JSONResponse:
    """200 while requests should be sent here."""
    return readiness({"ready": service.ready, "live": service.alive}, service.ready)


def _told(error: ServiceError) -> JSONResponse:
    """Returns the error as a response; raised, it would count as a request that was rejected."""
    return error_response(error.status, str(error), error.headers())


def _why_not_ready(service: Service) -> NotReadyError:
    if not service.alive:
        return WorkerDiedError("The server cannot answer any more and is about to end; restart it.")
    if service.draining:
        return DrainingError("The server is shutting down; send requests to another one.")
    return service.still_loading()
