"""The answers of the service's own protocol, as the OpenAPI description shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.server.protocols.results import ImageResult, TokenResult


class ClassifyAnswer(BaseModel):
    """The answers, in the order of the images, and for one image in that of the tasks that answer."""

    id: str = Field(description="the request's id, as in X-Request-Id")
    store_revision: str
    results: list[ImageResult | TokenResult]


class TaskDescription(BaseModel):
    """A task that is served."""

    name: str
    revision: str
    labels: Sequence[str]
    head_kind: str
    each_token: bool = Field(description="it classifies the tokens of a text, and no input as a whole")
    thresholds: Sequence[float] | None = Field(
        description="of each label, of a task of any number of labels: from which probability on it is given"
    )
    rank: int
    individual_accuracy: float | None = Field(description="of the individual fine-tuned model, where known")


class TaskList(BaseModel):
    """All tasks that are served."""

    store_revision: str
    reads: Literal["images", "texts"]
    modes: list[str] = Field(description="that a request may ask for; the first is the default")
    tasks: list[TaskDescription]


def task_description(task: TaskEntry) -> TaskDescription:
    """Returns the wire form of a task."""
    return TaskDescription(
        name=task.name,
        revision=task.revision,
        labels=task.labels,
        head_kind=task.head.kind,
        each_token=task.head.each_token,
        thresholds=task.head.thresholds,
        rank=task.rank,
        individual_accuracy=task.individual_accuracy,
    )
