"""From counts to the figures of the report. Its `images` are texts where the store reads those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from mass_serve.evaluation.answer_journal import AnswerJournal, Counts
from mass_serve.evaluation.measures import (
    ConfidenceBin,
    Interval,
    expected_calibration_error,
    mean_interval,
    micro_f1,
    wilson_interval,
)


class Accuracy(TypedDict):
    """The accuracy of a method on one task's inputs, or on average."""

    images: int
    accuracy: float
    micro_f1: float
    interval: Interval  # 95 %


class Intervals(TypedDict):
    """The 95 % intervals of the figures of the same names."""

    accuracy: Interval
    router_accuracy: Interval
    task_survival: Interval


class RoutedFigures(TypedDict):
    """One task's figures of a method that routes, or their average (whose `images` is the sum)."""

    images: int
    accuracy: float  # task and label both right; of a task of any number of labels, all of them
    micro_f1: float  # of the labels; of a task that gives one it is the accuracy
    normalised_accuracy: float | None  # accuracy / individual accuracy
    right_of_two: float  # task and label both right, of the answer or of its first alternative
    router_accuracy: float  # the largest coefficient is the right task's
    task_survival: float  # the right task is in the expert set
    mean_set_size: float
    mean_passes: float  # through the encoder, the first and the second together
    label_ece: float  # of the answer's score, against task and label both right
    task_ece: float  # of the largest coefficient, against its task being right
    intervals: Intervals


class ReliabilityBin(TypedDict):
    """The inputs whose confidence fell into one bin."""

    images: int
    confidence: float
    accuracy: float


class Calibration(TypedDict):
    """How well a confidence matches how often it is right, over the inputs of all tasks together."""

    ece: float
    bins: list[ReliabilityBin]


def routed_figures(journal: AnswerJournal, method: str, task: str, individual: float | None) -> RoutedFigures:
    """One task's figures of a method that routes. Raises ValueError for one that does not."""
    counts = journal.counts(method, task)
    inputs = counts.inputs
    accuracy = counts.right / inputs
    router_right, survived, set_sizes, passes, right_of_two = _routing_of(counts)
    return RoutedFigures(
        images=inputs,
        accuracy=accuracy,
        micro_f1=micro_f1(counts.hits, counts.given, counts.wanted),
        normalised_accuracy=accuracy / individual if individual else None,
        right_of_two=right_of_two / inputs,
        router_accuracy=router_right / inputs,
        task_survival=survived / inputs,
        mean_set_size=set_sizes / inputs,
        mean_passes=passes / inputs,
        label_ece=expected_calibration_error(journal.confidence_bins(method, "score", task)),
        task_ece=expected_calibration_error(journal.confidence_bins(method, "coefficient", task)),
        intervals=Intervals(
            accuracy=wilson_interval(counts.right, inputs),
            router_accuracy=wilson_interval(router_right, inputs),
            task_survival=wilson_interval(survived, inputs),
        ),
    )


def average_routed(figures: Sequence[RoutedFigures]) -> RoutedFigures:
    """The unweighted mean over tasks; null where a task's figure is unknown."""

    def interval(key: Literal["accuracy", "router_accuracy", "task_survival"]) -> Interval:
        return mean_interval([task[key] for task in figures], [task["intervals"][key] for task in figures])

    return RoutedFigures(
        images=sum(task["images"] for task in figures),
        accuracy=mean([task["accuracy"] for task in figures]),
        micro_f1=mean([task["micro_f1"] for task in figures]),
        normalised_accuracy=known_mean([task["normalised_accuracy"] for task in figures]),
        right_of_two=mean([task["right_of_two"] for task in figures]),
        router_accuracy=mean([task["router_accuracy"] for task in figures]),
        task_survival=mean([task["task_survival"] for task in figures]),
        mean_set_size=mean([task["mean_set_size"] for task in figures]),
        mean_passes=mean([task["mean_passes"] for task in figures]),
        label_ece=mean([task["label_ece"] for task in figures]),
        task_ece=mean([task["task_ece"] for task in figures]),
        intervals=Intervals(
            accuracy=interval("accuracy"),
            router_accuracy=interval("router_accuracy"),
            task_survival=interval("task_survival"),
        ),
    )


def known_accuracies(journal: AnswerJournal, method: str, tasks: Sequence[str]) -> dict[str, Accuracy]:
    """The accuracy of a method by task, and under "average" their unweighted mean."""
    figures = {}
    for task in tasks:
        counts = journal.counts(method, task)
        interval = wilson_interval(counts.right, counts.inputs)
        figures[task] = Accuracy(
            images=counts.inputs,
            accuracy=counts.right / counts.inputs,
            micro_f1=micro_f1(counts.hits, counts.given, counts.wanted),
            interval=interval,
        )
    figures["average"] = average_accuracy(figures)
    return figures


def average_accuracy(figures: Mapping[str, Accuracy]) -> Accuracy:
    """The unweighted mean over tasks."""
    accuracies = [task["accuracy"] for task in figures.values()]
    return Accuracy(
        images=sum(task["images"] for task in figures.values()),
        accuracy=mean(accuracies),
        micro_f1=mean([task["micro_f1"] for task in figures.values()]),
        interval=mean_interval(accuracies, [task["interval"] for task in figures.values()]),
    )


def calibration(bins: Sequence[ConfidenceBin]) -> Calibration:
    """The reliability diagram's numbers."""
    return Calibration(
        ece=expected_calibration_error(bins),
        bins=[
            ReliabilityBin(images=part.inputs, confidence=part.mean_confidence, accuracy=part.accuracy)
            for part in bins
        ],
    )


def mean(values: Sequence[float]) -> float:
    """The unweighted mean."""
    return sum(values) / len(values)


def known_mean(values: Sequence[float | None]) -> float | None:
    """The mean where all values are known, else None."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def _routing_of(counts: Counts) -> tuple[int, int, int, float, int]:
    """(router right, survived, set sizes, passes, right of two), all known. Raises ValueError otherwise."""
    if (
        counts.router_right is None
        or counts.survived is None
        or counts.set_sizes is None
        or counts.passes is None
        or counts.right_of_two is None
    ):
        raise ValueError("the method has not routed")
    return counts.router_right, counts.survived, counts.set_sizes, counts.passes, counts.right_of_two
