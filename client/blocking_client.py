"""A client whose methods return when the answer is there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar, overload

import httpx

from mass_serve.client.answers import Answer, EntityAnswer, TaskList
from mass_serve.client.errors import UnreachableError
from mass_serve.client.exchanges import Aggregation, Call, Exchange, Exchanges, Question
from mass_serve.client.inputs import Input, Text, listed
from mass_serve.client.patience import Patience

T = TypeVar("T")


class Client:
    """Asks one server; may be shared by threads.

    Where a server is busy it is asked again when its Retry-After says, `tries` times together and within
    `patience` seconds of waiting. `timeout` is that of connecting, sending and each read, in seconds.
    Long lists become requests of `batch_size` answers, which must not exceed the server's
    `max_images_per_request`. `http` is an httpx client of your own, for certificates or proxies.

    Every method raises ClientError (`mass_serve.client.errors`), TypeError for what is no input, OSError for
    a file that cannot be read, and ValueError where labels are asked for of a task that finds entities, or
    the other way round.
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
        http: httpx.Client | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"X-API-Key": key}
        self._http = httpx.Client(timeout=timeout) if http is None else http
        self._patience = Patience(tries, patience)
        self._exchanges = Exchanges(batch_size)

    @overload
    def classify(
        self,
        inputs: list[Any],
        *,
        tasks: Sequence[str] | None = ...,
        top_k: int | None = ...,
        same_task: bool = ...,
    ) -> list[Answer]: ...

    @overload
    def classify(
        self,
        inputs: Input,
        *,
        tasks: Sequence[str] | None = ...,
        top_k: int | None = ...,
        same_task: bool = ...,
    ) -> Answer: ...

    def classify(
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
        found = self._run(self._exchanges.answers(listed(inputs), question))
        return found if isinstance(inputs, list) else found[0]

    @overload
    def classify_each(
        self, inputs: list[Any], *, tasks: Sequence[str] | None = ..., top_k: int | None = ...
    ) -> list[list[Answer | EntityAnswer]]: ...

    @overload
    def classify_each(
        self, inputs: Input, *, tasks: Sequence[str] | None = ..., top_k: int | None = ...
    ) -> list[Answer | EntityAnswer]: ...

    def classify_each(
        self, inputs: Input | list[Any], *, tasks: Sequence[str] | None = None, top_k: int | None = None
    ) -> list[Answer | EntityAnswer] | list[list[Answer | EntityAnswer]]:
        """Returns the answers of all tasks, or of those named, to an input, or to each of a list."""
        found = self._run(self._exchanges.each(listed(inputs), Question(tasks, top_k, each=True)))
        return found if isinstance(inputs, list) else found[0]

    @overload
    def entities(
        self, texts: list[Any], task: str, *, aggregation: Aggregation = ...
    ) -> list[EntityAnswer]: ...

    @overload
    def entities(self, texts: Text, task: str, *, aggregation: Aggregation = ...) -> EntityAnswer: ...

    def entities(
        self, texts: Text | list[Any], task: str, *, aggregation: Aggregation = "simple"
    ) -> EntityAnswer | list[EntityAnswer]:
        """Returns what a task that classifies tokens finds in a text, or in each of a list."""
        question = Question([task], aggregation=aggregation)
        found = self._run(self._exchanges.entities(listed(texts), question))
        return found if isinstance(texts, list) else found[0]

    def tasks(self) -> TaskList:
        """Returns what is served."""
        return self._run(self._exchanges.tasks())

    def close(self) -> None:
        """Closes the connections, also those of an httpx client that was given."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, exchange: Exchange[T]) -> T:
        try:
            call = next(exchange)
            while True:
                call = exchange.send(self._response(call))
        except StopIteration as end:
            result: T = end.value
            return result

    def _response(self, call: Call) -> httpx.Response:
        patience = self._patience
        while True:
            try:
                response = self._http.request(
                    call.method, self._url + call.path, headers=self._headers, **call.options
                )
            except httpx.RequestError as error:
                raise UnreachableError(f"{self._url} does not answer: {error}") from error
            if (again := patience.after(response)) is None:
                return response
            wait, patience = again
            time.sleep(wait)
