"""A client whose methods return when the answer is there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar, overload

import httpx

from mass_serve.client.answers import Answer, EntityAnswer, TaskList
from mass_serve.client.asking import Exchange, Outcome, Pause, Step
from mass_serve.client.base_client import BaseClient
from mass_serve.client.exchanges import Aggregation, Names, Question
from mass_serve.client.inputs import Input, Text

T = TypeVar("T")


class Client(BaseClient[httpx.Client]):
    """Asks one server; may be shared by threads.

    Where a server is busy it is asked again when its Retry-After says, `tries` times together and within
    `patience` seconds of waiting. `timeout` is that of connecting, sending and each read, in seconds.
    Long lists become requests of `batch_size` answers, which must not exceed the server's
    `max_images_per_request`. `http` is an httpx client of your own, for certificates or proxies.

    Every method raises ClientError (`mass_serve.client.errors`), TypeError for what is no input, OSError for
    a file that cannot be read, and ValueError where labels are asked for of a task that finds entities, or
    the other way round. A key that no header can hold is a ValueError, too.
    """

    @overload
    def classify(
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
    def classify(
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

    def classify(
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
        return self._run(self._exchanges.classify(inputs, question))

    @overload
    def classify_each(
        self, inputs: list[Any], *, tasks: Names | None = ..., top_k: int | None = ...
    ) -> list[list[Answer | EntityAnswer]]: ...

    @overload
    def classify_each(
        self, inputs: Input, *, tasks: Names | None = ..., top_k: int | None = ...
    ) -> list[Answer | EntityAnswer]: ...

    def classify_each(
        self, inputs: Input | list[Any], *, tasks: Names | None = None, top_k: int | None = None
    ) -> list[Answer | EntityAnswer] | list[list[Answer | EntityAnswer]]:
        """Returns the answers of all tasks, or of those named, to an input, or to each of a list."""
        return self._run(self._exchanges.classify_each(inputs, Question(tasks, top_k, each=True)))

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
        return self._run(self._exchanges.entities(texts, Question(task, aggregation=aggregation)))

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

    @staticmethod
    def _connecting(timeout: float) -> httpx.Client:
        return httpx.Client(timeout=timeout)

    def _run(self, exchange: Exchange[T]) -> T:
        try:
            step = next(exchange)
            while True:
                step = exchange.send(self._outcome(step))
        except StopIteration as end:
            result: T = end.value
            return result

    def _outcome(self, step: Step) -> Outcome:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.request(step.method, step.url, headers=step.headers, **step.options)
        except httpx.RequestError as error:
            return error
