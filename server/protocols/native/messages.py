"""The answers of the service's own protocol, as the OpenAPI description shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    labels: Sequence[str] = Field(description="none where the request has `labels=false`")
    num_labels: int
    head_kind: str
    each_token: bool = Field(description="it classifies the tokens of a text, and no input as a whole")
    thresholds: Sequence[float] | None = Field(
        description="of each label, of a task of any number of them: from which probability on it is given"
    )
    rank: int
    individual_accuracy: float | None = Field(description="of the individual fine-tuned model, where known")


class TaskList(BaseModel):
    """The tasks that are served, or those of them that were asked for."""

    store_revision: str
    dtype: str = Field(description="arithmetic of the encoder")
    reads: Literal["images", "texts"]
    modes: list[str] = Field(description="that a request may ask for; the first is the default")
    num_tasks: int = Field(description="all that were asked for, also where `limit` leaves some out")
    tasks: list[TaskDescription]
    groups: Mapping[str, Sequence[str]] = Field(
        description="names for several tasks, with those of them that are served; in requests `@retail` is"
        " all of `retail`"
    )


def task_description(task: TaskEntry, labels: bool = True) -> TaskDescription:
    """Returns the wire form of a task, with or without its labels."""
    thresholds = task.head.thresholds
    return TaskDescription(
        name=task.name,
        revision=task.revision,
        labels=task.labels if labels else (),
        num_labels=len(task.labels),
        head_kind=task.head.kind,
        each_token=task.head.each_token,
        thresholds=thresholds if labels or thresholds is None else (),
        rank=task.rank,
        individual_accuracy=task.individual_accuracy,
    )
