"""GET /v1/tasks: what this server can tell apart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Literal
from weakref import ref

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from mass_serve.engine import Question, ServingEngine
from mass_serve.server.errors import NotFoundError
from mass_serve.server.protocols.native.classify_requests import split_names
from mass_serve.server.protocols.native.messages import TaskDescription, TaskList, task_description
from mass_serve.server.serving.caller import ITSELF
from mass_serve.server.serving.named_tasks import with_known_tasks
from mass_serve.server.serving.parsers import Parsers
from mass_serve.server.web.receiving import FOR_INFERENCE, CurrentService
from mass_serve.server.web.responses import error_responses

# More than any store has tasks.
MOST_PLACES = 1 << 31

router = APIRouter(tags=["classification"], dependencies=FOR_INFERENCE)


@dataclass(frozen=True)
class Selection:
    """Which of the tasks a caller wants to know of, and how much."""

    names: tuple[str, ...] | None = None  # of tasks and groups; None: all
    labels: bool = True
    offset: int = 0
    limit: int | None = None

    @property
    def is_whole(self) -> bool:
        """Tells whether it is of all tasks."""
        return (self.names, self.offset, self.limit) == (None, 0, None)


class TaskLists:
    """Writes the lists of all of an engine's tasks once: a store may have a million labels."""

    def __init__(self, parsers: Parsers, dtype: str) -> None:
        """`dtype` is that of the engines, which have the same options for good."""
        self._parsers = parsers
        self._dtype = dtype
        # Not the engine itself, which shall go when another has taken its place.
        self._engine: ref[ServingEngine] | None = None
        self._written: dict[Selection, asyncio.Future[str]] = {}

    async def of(self, engine: ServingEngine, wanted: Selection) -> str:
        """Returns the list in JSON. Raises NotFoundError for a name of nothing that is served."""
        if not wanted.is_whole:
            return await self._write(engine, wanted)
        if self._engine is None or self._engine() is not engine:
            self._engine, self._written = ref(engine), {}
        writing = self._written.get(wanted)
        if writing is None or _failed(writing):
            writing = asyncio.ensure_future(self._write(engine, wanted))
            self._written[wanted] = writing
        return await asyncio.shield(writing)  # others may wait for it when this one leaves

    async def _write(self, engine: ServingEngine, wanted: Selection) -> str:
        return await self._parsers.run(ITSELF.turn(), 0, _written, engine, self._dtype, wanted)


def _failed(writing: asyncio.Future[str]) -> bool:
    return writing.done() and (writing.cancelled() or writing.exception() is not None)


def _written(engine: ServingEngine, dtype: str, wanted: Selection) -> str:
    names = with_known_tasks(Question(wanted.names), engine).tasks or tuple(engine.tasks)
    end = None if wanted.limit is None else wanted.offset + wanted.limit
    reads: Literal["images", "texts"] = "images" if engine.tokenizer is None else "texts"
    served = TaskList(
        store_revision=engine.store_revision,
        dtype=dtype,
        reads=reads,
        modes=list(engine.modes),
        num_tasks=len(names),
        tasks=[task_description(engine.tasks[name], wanted.labels) for name in names[wanted.offset : end]],
        groups=engine.groups,
    )
    return served.model_dump_json()


async def _task_lists(request: Request) -> TaskLists:
    lists: TaskLists = request.app.state.task_lists
    return lists


@router.get("/v1/tasks", response_model=TaskList, responses=error_responses(400, 401, 404, 503))
async def list_tasks(
    service: CurrentService,
    lists: Annotated[TaskLists, Depends(_task_lists)],
    name: Annotated[
        list[str] | None,
        Query(description="of tasks, or of a group as `@retail`; repeated or with commas, all without it"),
    ] = None,
    labels: Annotated[
        bool, Query(description="false leaves out what is long: the labels of tasks and their thresholds")
    ] = True,
    offset: Annotated[int, Query(ge=0, le=MOST_PLACES, description="tasks to pass over")] = 0,
    limit: Annotated[
        int | None, Query(ge=1, le=MOST_PLACES, description="most tasks to list; all without it")
    ] = None,
) -> Response:
    """The tasks of the store with their labels, in the store's order, and its groups of tasks.

    A store of hundreds of tasks may have megabytes of labels: `labels=false` tells how many there are, and
    `/v1/tasks/{name}` which.
    """
    names = None if name is None else tuple(split_names(name))
    wanted = Selection(names or None, labels, offset, limit)
    return Response(await lists.of(service.engine, wanted), media_type="application/json")


@router.get("/v1/tasks/{name}", responses=error_responses(401, 404, 503))
async def get_task(name: str, service: CurrentService) -> TaskDescription:
    """One task."""
    task = service.engine.tasks.get(name)
    if task is None:
        raise NotFoundError(f"There is no task {name[:80]!a}; GET /v1/tasks lists those there are.")
    return task_description(task)
