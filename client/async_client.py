"""A client whose methods are awaited."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar, overload

import anyio
import httpx

from mass_serve.client.answers import Answer, EntityAnswer, TaskList
from mass_serve.client.errors import UnreachableError
from mass_serve.client.exchanges import Aggregation, Call, Exchange, Exchanges, Question
from mass_serve.client.inputs import Input, Text, listed
from mass_serve.client.patience import Patience

T = TypeVar("T")


class AsyncClient:
    """Asks one server, under asyncio and trio. Everything else is as of `Client`.

    Files are read, and pictures made PNG, on a thread.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout: float = 60.0,
        tries: int = 5,
        patience: float = 60.0,
        batch_size: int = 32,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"X-API-Key": key}
        self._http = httpx.AsyncClient(timeout=timeout) if http is None else http
        self._patience = Patience(tries, patience)
        self._exchanges = Exchanges(batch_size)

    @overload
    async def classify(
        self,
        inputs: list[Any],
        *,
        tasks: Sequence[str] | None = ...,
        top_k: int | None = ...,
        same_task: bool = ...,
    ) -> list[Answer]: ...

    @overload
    async def classify(
        self,
        inputs: Input,
        *,
        tasks: Sequence[str] | None = ...,
        top_k: int | None = ...,
        same_task: bool = ...,
    ) -> Answer: ...

    async def classify(
        self,
        inputs: Input | list[Any],
        *,
        tasks: Sequence[str] | None = None,
        top_k: int | None = None,
        same_task: bool = False,
    ) -> Answer | list[Answer]:
        """Returns the answer to an input, or those to a list of them.

        A str is a text where the server reads texts, else the path of an image. `tasks` are the candidates,
        all by default; `same_task` says that all inputs are of one task, found by their evidence together.
        """
        question = Question(tasks, top_k, same_task=same_task)
        found = await self._run(self._exchanges.answers(listed(inputs), question))
        return found if isinstance(inputs, list) else found[0]

    @overload
    async def classify_each(
        self, inputs: list[Any], *, tasks: Sequence[str] | None = ..., top_k: int | None = ...
    ) -> list[list[Answer | EntityAnswer]]: ...

    @overload
    async def classify_each(
        self, inputs: Input, *, tasks: Sequence[str] | None = ..., top_k: int | None = ...
    ) -> list[Answer | EntityAnswer]: ...

    async def classify_each(
        self, inputs: Input | list[Any], *, tasks: Sequence[str] | None = None, top_k: int | None = None
    ) -> list[Answer | EntityAnswer] | list[list[Answer | EntityAnswer]]:
        """Returns the answers of all tasks, or of those named, to an input, or to each of a list."""
        found = await self._run(self._exchanges.each(listed(inputs), Question(tasks, top_k, each=True)))
        return found if isinstance(inputs, list) else found[0]

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
        question = Question([task], aggregation=aggregation)
        found = await self._run(self._exchanges.entities(listed(texts), question))
        return found if isinstance(texts, list) else found[0]

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

    async def _run(self, exchange: Exchange[T]) -> T:
        made: list[T] = []
        call = await anyio.to_thread.run_sync(_advance, exchange, None, made)
        while call is not None:
            call = await anyio.to_thread.run_sync(_advance, exchange, await self._response(call), made)
        return made[0]

    async def _response(self, call: Call) -> httpx.Response:
        patience = self._patience
        while True:
            try:
                response = await self._http.request(
                    call.method, self._url + call.path, headers=self._headers, **call.options
                )
            except httpx.RequestError as error:
                raise UnreachableError(f"{self._url} does not answer: {error}") from error
            if (again := patience.after(response)) is None:
                return response
            wait, patience = again
            await anyio.sleep(wait)


def _advance(exchange: Exchange[T], response: httpx.Response | None, made: list[T]) -> Call | None:
    """Returns an exchange's next call; None at its end, with what it made in `made`.

    Its end is no exception here, because a coroutine would take a StopIteration for its own.
    """
    try:
        return next(exchange) if response is None else exchange.send(response)
    except StopIteration as end:
        made.append(end.value)
        return None
