"""GET /v1/tasks: what this server can tell apart."""

from __future__ import annotations

from fastapi import APIRouter

from mass_serve.server.errors import NotFoundError
from mass_serve.server.protocols.native.answers import TaskDescription, TaskList, task_description
from mass_serve.server.web.receiving import FOR_INFERENCE, CurrentService
from mass_serve.server.web.responses import error_responses

router = APIRouter(dependencies=FOR_INFERENCE)


@router.get("/v1/tasks", responses=error_responses(401, 503))
async def list_tasks(service: CurrentService) -> TaskList:
    """All tasks of the store, with their labels."""
    engine = service.engine
    tasks = [task_description(task) for task in engine.tasks.values()]
    return TaskList(store_revision=engine.store_revision, tasks=tasks)


@router.get("/v1/tasks/{name}", responses=error_responses(401, 404, 503))
async def get_task(name: str, service: CurrentService) -> TaskDescription:
    """One task."""
    task = service.engine.tasks.get(name)
    if task is None:
        raise NotFoundError(f"There is no task {name[:80]!a}; GET /v1/tasks lists those there are.")
    return task_description(task)
