"""The whole answer to a batch of images: first pass, route, group, second pass, heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from server.preprocessing import Preprocessing


@dataclass(frozen=True)
class Query:
    """One image to classify."""

    pixels: Tensor  # [3, crop, crop] uint8, RGB, as `Preprocessing.preprocess` makes it
    candidates: tuple[str, ...] | None = None  # the tasks to choose from; None: all of the store


@dataclass(frozen=True)
class Classification:
    """The answer for one image."""

    task: str
    task_revision: str
    labels: tuple[str, ...]  # of the winning head, in row order
    probabilities: Tensor  # [C] float32 on the CPU: the winning head's softmax
    expert_set: tuple[str, ...]
    coefficients: dict[str, float]  # of the expert set
    residuals: dict[str, float]  # of the expert set; empty where one task was named and nothing was routed


@dataclass(frozen=True)
class BatchReport:
    """The answers to a batch, in the order of its queries, and what it took."""

    answers: list[Classification]
    stage_seconds: dict[str, float]  # first_pass, route, second_pass, heads
    expert_sets: list[tuple[str, ...]]  # one per segment


@dataclass(frozen=True)
class TaskInfo:
    """What a caller may know of a task."""

    name: str
    revision: str
    labels: tuple[str, ...]
    head_kind: str
    rank: int
    individual_accuracy: float | None


class Engine:
    """Placeholder of the interface while the engine is being written."""

    store_revision: str
    tasks: Mapping[str, TaskInfo]
    preprocessing: Preprocessing

    def classify_batch(self, queries: Sequence[Query]) -> BatchReport:
        """Answers every query."""
        raise NotImplementedError
