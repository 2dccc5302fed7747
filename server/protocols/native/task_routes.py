"""GET /v1/tasks: what this server can tell apart."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal
from weakref import ref

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from mass_serve.engine import ServingEngine
from mass_serve.server.errors import NotFoundError
from mass_serve.server.protocols.native.messages import TaskDescription, TaskList, task_description
from mass_serve.server.serving.caller import ITSELF
from mass_serve.server.serving.parsers import Parsers
from mass_serve.server.web.receiving import FOR_INFERENCE, CurrentService
from mass_serve.server.web.responses import error_responses

router = APIRouter(tags=["classification"], dependencies=FOR_INFERENCE)


class TaskLists:
    """Writes the list of an engine's tasks once: a store may have a million labels."""

    def __init__(self, parsers: Parsers) -> None:
        self._parsers = parsers
        # Not the engine itself, which shall go when another has taken its place.
        self._last: tuple[ref[ServingEngine], asyncio.Future[str]] | None = None

    async def of(self, engine: ServingEngine) -> str:
        """Returns the list in JSON."""
        if self._last is None or self._last[0]() is not engine or _failed(self._last[1]):
            self._last = (
                ref(engine),
                asyncio.ensure_future(self._parsers.run(ITSELF.turn(), 0, _written, engine)),
            )
        return await asyncio.shield(self._last[1])  # others may wait for it when this one leaves


def _failed(writing: asyncio.Future[str]) -> bool:
    return writing.done() and (writing.cancelled() or writing.exception() is not None)


def _written(engine: ServingEngine) -> str:
    tasks = [task_description(task) for task in engine.tasks.values()]
    reads: Literal["images", "texts"] = "images" if engine.tokenizer is None else "texts"
    served = TaskList(
        store_revision=engine.store_revision, reads=reads, modes=list(engine.modes), tasks=tasks
    )
    return served.model_dump_json()


async def _task_lists(request: Request) -> TaskLists:
    lists: TaskLists = request.app.state.task_lists
    return lists


@router.get("/v1/tasks", response_model=TaskList, responses=error_responses(401, 503))
async def list_tasks(service: CurrentService, lists: Annotated[TaskLists, Depends(_task_lists)]) -> Response:
    """All tasks of the store, with their labels."""
    return Response(await lists.of(service.engine), media_type="application/json")


@router.get("/v1/tasks/{name}", responses=error_responses(401, 404, 503))
async def get_task(name: str, service: CurrentService) -> TaskDescription:
    """One task."""
    task = service.engine.tasks.get(name)
    if task is None:
        raise NotFoundError(f"There is no task {name[:80]!a}; GET /v1/tasks lists those there are.")
    return task_description(task)
