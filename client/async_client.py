"""A client whose methods are awaited."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar, overload

import anyio
import httpx

from mass_serve.client.answers import Answer, EntityAnswer, TaskList
from mass_serve.client.asking import Exchange, Outcome, Pause, Step
from mass_serve.client.base_client import BaseClient
from mass_serve.client.exchanges import Aggregation, Names, Question
from mass_serve.client.inputs import Input, Text

T = TypeVar("T")


class AsyncClient(BaseClient[httpx.AsyncClient]):
    """Is awaited, under asyncio and trio; everything else is as of `Client`.

    Files are read, and pictures made PNG, on a thread.
    """

    @overload
    async def classify(
        self,
        inputs: list[Any],
        *,
        tasks: Names | None = ...,
        top_k: int | None = ...,
        same_task: bool = ...,
        stream: str | None = ...,
        priors: Mapping[str, float] | None = ...,
        mode: str | None = ...,
    ) -> list[Answer]: ...

    @overload
    async def classify(
        self,
        inputs: Input,
        *,
        tasks: Names | None = ...,
        top_k: int | None = ...,
        same_task: bool = ...,
        stream: str | None = ...,
        priors: Mapping[str, float] | None = ...,
        mode: str | None = ...,
    ) -> Answer: ...

    async def classify(
        self,
        inputs: Input | list[Any],
        *,
        tasks: Names | None = None,
        top_k: int | None = None,
        same_task: bool = False,
        stream: str | None = None,
        priors: Mapping[str, float] | None = None,
        mode: str | None = None,
    ) -> Answer | list[Answer]:
        """Returns the answer to an input, or those to a list of them.

        A str is a text where the server reads texts, else the path of an image. `tasks` are the candidates,
        all by default; `same_task` says that all inputs are of one task, found by their evidence together,
        and `stream` that they are the next ones of the stream of that name. `priors` are probabilities of
        tasks before an input is looked at; those that are not named share what is left of 1. `mode` is one
        of the server's `modes`, how much the search for the task is worth.
        """
        question = Question(tasks, top_k, same_task=same_task, stream=stream, priors=priors, mode=mode)
        return await self._run(self._exchanges.classify(inputs, question))

    @overload
    async def classify_each(
        self, inputs: list[Any], *, tasks: Names | None = ..., top_k: int | None = ...
    ) -> list[list[Answer | EntityAnswer]]: ...

    @overload
    async def classify_each(
        self, inputs: Input, *, tasks: Names | None = ..., top_k: int | None = ...
    ) -> list[Answer | EntityAnswer]: ...

    async def classify_each(
        self, inputs: Input | list[Any], *, tasks: Names | None = None, top_k: int | None = None
    ) -> list[Answer | EntityAnswer] | list[list[Answer | EntityAnswer]]:
        """Returns the answers of all tasks, or of those named, to an input, or to each of a list."""
        return await self._run(self._exchanges.classify_each(inputs, Question(tasks, top_k, each=True)))

    @overload
    async def entities(
        self, texts: list[Any], task: str, *, aggregation: Aggregation = ...
    ) -> list[EntityAnswer]: ...

    @overload
    async def entities(self, texts: Text, task: str, *, aggregation: Aggregation = ...) -> EntityAnswer: ...

    async def entities(
        self, texts: Text | list[Any], task: str, *, aggregation: Aggregation = "simple"
    ) -> EntityAnswer | list[EntityAnswer]:
        """Returns what a task that classifies tokens finds in a text, or in each of a list."""
        return await self._run(self._exchanges.entities(texts, Question(task, aggregation=aggregation)))

    async def tasks(self) -> TaskList:
        """Returns what is served."""
        return await self._run(self._exchanges.tasks())

    async def close(self) -> None:
        """Closes the connections, also those of an httpx client that was given."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @staticmethod
    def _connecting(timeout: float) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=timeout)

    async def _run(self, exchange: Exchange[T]) -> T:
        made: list[T] = []
        step = await anyio.to_thread.run_sync(_advance, exchange, None, made)
        while step is not None:
            step = await anyio.to_thread.run_sync(_advance, exchange, await self._outcome(step), made)
        return made[0]

    async def _outcome(self, step: Step) -> Outcome:
        if isinstance(step, Pause):
            await anyio.sleep(step.seconds)
            return None
        try:
            return await self._http.request(step.method, step.url, headers=step.headers, **step.options)
        except httpx.RequestError as error:
            return error


def _advance(exchange: Exchange[T], outcome: Outcome, made: list[T]) -> Step | None:
    """Returns an exchange's next step; None at its end, with what it made in `made`.

    Its end is no exception here, because a coroutine would take a StopIteration for its own.
    """
    try:
        return exchange.send(outcome)
    except StopIteration as end:
        made.append(end.value)
        return None
