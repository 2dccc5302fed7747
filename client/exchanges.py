"""What is sent for a question and made of the responses, without a connection: the same for both clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from mass_serve.client.answers import Answer, EntityAnswer, TaskList
from mass_serve.client.asking import Asker, Exchange
from mass_serve.client.inputs import Input, image_file, is_pair, listed, text_json
from mass_serve.client.responses import read_results, read_tasks

T = TypeVar("T")
Aggregation: TypeAlias = Literal["none", "simple", "first", "average", "max"]
# Of tasks, and of groups of tasks as `@retail`; one name may stand alone.
Names: TypeAlias = str | Sequence[str]
# Of the tasks: labels may be megabytes.
WITHOUT_LABELS = {"labels": "false"}


@dataclass(frozen=True)
class Question:
    """Holds what is asked beside the inputs."""

    tasks: Names | None = None
    top_k: int | None = None
    each: bool = False
    same_task: bool = False
    stream: str | None = None
    priors: Mapping[str, float] | None = None
    mode: str | None = None
    aggregation: Aggregation | None = None

    @property
    def names(self) -> Sequence[str] | None:
        """The tasks in question; None: all of them."""
        return [self.tasks] if isinstance(self.tasks, str) else self.tasks

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters: what is not the server's default."""
        said = {
            "tasks": None if self.names is None else ",".join(self.names),
            "top_k": None if self.top_k is None else str(self.top_k),
            "answer": "each" if self.each else None,
            "same_task": "true" if self.same_task else None,
            "stream": self.stream,
            "priors": None if self.priors is None else _as_text(self.priors),
            "mode": self.mode,
            "aggregation": self.aggregation,
        }
        return {name: value for name, value in said.items() if value is not None}


class Exchanges:
    """The exchanges with one server. Whether it reads texts is asked once, where a str may be both.

    What is asked about one input gets one answer, and about a list of them a list.
    """

    def __init__(self, asker: Asker, batch_size: int) -> None:
        """`batch_size` is how many answers a request asks for."""
        self._asker = asker
        self._batch_size = batch_size
        self._reads_texts: bool | None = None

    def tasks(self) -> Exchange[TaskList]:
        """Asks what is served."""
        return (yield from self._served({}))

    def _served(self, params: dict[str, str]) -> Exchange[TaskList]:
        served = read_tasks((yield from self._asker.ask("GET", "/v1/tasks", params=params)))
        self._reads_texts = served.reads == "texts"
        return served

    def classify(self, inputs: Input | list[Any], question: Question) -> Exchange[Answer | list[Answer]]:
        """Asks for one answer to each input. Raises ValueError for a task that finds entities."""
        found = yield from self._results(listed(inputs), question, 1)
        return _as_given(inputs, [_whole(one) for own in found for one in own])

    def classify_each(
        self, inputs: Input | list[Any], question: Question
    ) -> Exchange[list[Answer | EntityAnswer] | list[list[Answer | EntityAnswer]]]:
        """Asks for an answer of every task to each input."""
        count = yield from self._num_tasks(question.names)
        return _as_given(inputs, (yield from self._results(listed(inputs), question, max(1, count))))

    def _num_tasks(self, names: Sequence[str] | None) -> Exchange[int]:
        """Returns how many tasks these names stand for; an unknown group's the server will tell of."""
        if names is not None and not any(name.startswith("@") for name in names):
            return len(names)
        served = yield from self._served(WITHOUT_LABELS)
        if names is None:
            return len(served.tasks)
        groups = {f"@{group}": tasks for group, tasks in served.groups.items()}
        return len({task for name in names for task in groups.get(name, [name])})

    def entities(
        self, texts: Input | list[Any], question: Question
    ) -> Exchange[EntityAnswer | list[EntityAnswer]]:
        """Asks for the entities in each text. Raises ValueError for a task that finds none."""
        found = yield from self._results(listed(texts), question, 1)
        return _as_given(texts, [_of_tokens(one) for own in found for one in own])

    def _results(
        self, inputs: Sequence[Input], question: Question, answers_each: int
    ) -> Exchange[list[list[Answer | EntityAnswer]]]:
        """Asks in requests of about `batch_size` answers, and returns those of each input."""
        are_texts = yield from self._are_texts(inputs)
        # The evidence of inputs of one task is pooled in one request.
        size = len(inputs) if question.same_task else self._batch_size // answers_each
        found: list[list[Answer | EntityAnswer]] = []
        for portion in _portions(inputs, size):
            options = {"params": question.query, **_body(portion, are_texts)}
            response = yield from self._asker.ask("POST", "/v1/classify", **options)
            results = list(read_results(response))
            # Counted anew: the server may have more tasks than when it was asked for them.
            each = len(results) // len(portion)
            found += [results[place * each : (place + 1) * each] for place in range(len(portion))]
        return found

    def _are_texts(self, inputs: Sequence[Input]) -> Exchange[bool]:
        if any(is_pair(one) for one in inputs):
            return True
        if self._reads_texts is None and any(isinstance(one, str) for one in inputs):
            yield from self._served(WITHOUT_LABELS)
        return bool(self._reads_texts)


def _as_text(priors: Mapping[str, float]) -> str:
    return ",".join(f"{name}:{float(share)!r}" for name, share in priors.items())


def _as_given(inputs: Input | list[Any], found: list[T]) -> T | list[T]:
    """Returns what was found of each input, or of the only one where that was no list."""
    return found if isinstance(inputs, list) else found[0]


def _portions(inputs: Sequence[Input], size: int) -> Iterator[Sequence[Input]]:
    size = max(1, size)
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size]


def _body(inputs: Sequence[Input], are_texts: bool) -> dict[str, Any]:
    if are_texts:
        return {"json": {"texts": [text_json(one) for one in inputs]}}
    return {"files": [("images", (str(place), image_file(one))) for place, one in enumerate(inputs)]}


def _whole(result: Answer | EntityAnswer) -> Answer:
    if isinstance(result, EntityAnswer):
        raise ValueError(f"the task {result.task} finds entities and has no label; ask it with entities()")
    return result


def _of_tokens(result: Answer | EntityAnswer) -> EntityAnswer:
    if isinstance(result, Answer):
        raise ValueError(f"the task {result.task} finds no entities; ask it with classify()")
    return result
