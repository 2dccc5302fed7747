"""The answers of `POST /v1/classify` and `GET /v1/tasks`. What a newer server says beside is not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter


@dataclass(frozen=True)
class LabelScore:
    """A label and its probability."""

    label: str
    score: float


@dataclass(frozen=True)
class Routing:
    """How the task was chosen: the tasks whose changes were applied, and the figures for each of them."""

    expert_set: Sequence[str]
    coefficients: Mapping[str, float]
    residuals: Mapping[str, float]
    familiarity: (
        float | None
    )  # 0 to 1: how much the input is like those of the task; None where one was named
    # Of inputs that were said to be of one task: those with one number are; None of an input by itself.
    part: int | None = None


@dataclass(frozen=True)
class Alternative:
    """Another task that the input was tried with, and what it says."""

    task: str
    task_revision: str
    label: str
    score: float
    coefficient: float
    labels: Sequence[LabelScore] | None = None  # as of an answer


@dataclass(frozen=True)
class Answer:
    """What a task says of an input as a whole."""

    task: str
    task_revision: str
    label: str  # the likeliest
    score: float
    top: Sequence[LabelScore]
    unrouted: bool  # the input is so little like those of any task that none is believed
    routing: Routing
    alternatives: Sequence[Alternative] = ()
    cut: int | None = None  # how many tokens of a text were not read
    # Of a task of any number of labels: those that reach their thresholds, likeliest first; None of others.
    labels: Sequence[LabelScore] | None = None


@dataclass(frozen=True)
class Entity:
    """A run of a text's characters, from `start` to before `end`, and what it is."""

    label: str
    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class EntityAnswer:
    """What a task that classifies tokens finds in a text."""

    task: str
    task_revision: str
    entities: Sequence[Entity]
    cut: int


@dataclass(frozen=True)
class Task:
    """A task that is served."""

    name: str
    revision: str
    labels: Sequence[str]
    head_kind: str
    each_token: bool  # it finds entities
    rank: int
    individual_accuracy: float | None
    # Of each label, of a task of any number of labels: the probability from which on it is given.
    thresholds: Sequence[float] | None = None
    num_labels: int | None = None  # None: the server is of a version that does not count them


@dataclass(frozen=True)
class TaskList:
    """Holds what a server serves."""

    store_revision: str
    reads: Literal["images", "texts"]
    tasks: Sequence[Task]
    modes: Sequence[str] = ()  # that may be asked for; the first is the default
    # Names for several tasks, and those of them that are served: `@retail` stands for all of `retail`.
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    num_tasks: int | None = None  # None: the server is of a version that does not count them
    dtype: str | None = None  # arithmetic of the encoder; None: the server is of a version that does not say


@dataclass(frozen=True)
class ClassifyAnswer:
    """The answers to one request."""

    id: str
    store_revision: str
    results: Sequence[Answer | EntityAnswer]


TASK_LIST = TypeAdapter(TaskList)
CLASSIFY_ANSWER = TypeAdapter(ClassifyAnswer)
