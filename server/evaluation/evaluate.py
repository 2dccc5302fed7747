"""One pass over the data: MASS as it is served, and the baselines beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from torch import Tensor

from model_store.progress import Progress, silent
from server.engine import Classification, Engine, Query
from server.evaluation.baselines import baseline_encoders, dense_predictions
from server.evaluation.images import EvaluationData, ImageBatch

BATCH_IMAGES = 64


class Baselines(TypedDict):
    """Accuracies, 0 to 1, with the task known."""

    individual: float | None
    pretrained: float
    task_arithmetic: float
    tsv_m: float
    tsv_c: float


class TaskFigures(TypedDict):
    """The figures of one task, or their average (whose `images` is the sum)."""

    images: int
    accuracy: float  # task and label both right
    normalised_accuracy: float | None  # accuracy / individual accuracy
    router_accuracy: float  # the largest coefficient is the right task's
    task_survival: float  # the right task is in the expert set
    mean_set_size: float
    baselines: Baselines


class Report(TypedDict):
    """The JSON of `mass-serve eval`."""

    tasks: dict[str, TaskFigures]
    average: TaskFigures


@dataclass
class Tally:
    """Counts of one task's images."""

    images: int = 0
    right: Counter[str] = field(default_factory=Counter)  # by method: "mass", "router", "survival", baselines
    set_sizes: int = 0
    routed_to: Counter[str] = field(default_factory=Counter)  # by task: where the largest coefficient is

    def add_answers(
        self, task: str, labels: Sequence[str], batch: ImageBatch, answers: Sequence[Classification]
    ) -> None:
        """Counts what MASS answered to a batch of images of `task`."""
        self.images += len(answers)
        for answer, target in zip(answers, batch.targets.tolist(), strict=True):
            label = answer.labels[int(answer.probabilities.argmax())]
            first = max(answer.coefficients, key=lambda name: answer.coefficients[name])
            self.right["mass"] += (answer.task, label) == (task, labels[target])
            self.right["router"] += first == task
            self.right["survival"] += task in answer.expert_set
            self.set_sizes += len(answer.expert_set)
            self.routed_to[first] += 1

    def add_baseline(self, name: str, predictions: Tensor, batch: ImageBatch) -> None:
        """Counts what a baseline predicted."""
        self.right[name] += int((predictions == batch.targets).sum())

    def share(self, method: str) -> float:
        """The share of the images that `method` got right."""
        return self.right[method] / self.images


@dataclass(frozen=True)
class Evaluation:
    """The figures, and where the images of each task were routed."""

    report: Report
    routed_to: dict[str, Counter[str]]


def evaluate(engine: Engine, data: EvaluationData, progress: Progress = silent) -> Evaluation:
    """Classifies every image with its task unknown, and with each baseline, a batch in memory at a time."""
    encoders = baseline_encoders(engine.bank)
    tallies = {task: Tally() for task in data.tasks}
    total = sum(data.count(task) for task in data.tasks)
    done = 0
    for task in data.tasks:
        for batch in data.batches(task, engine.preprocessing, BATCH_IMAGES):
            _count_batch(engine, encoders, task, batch, tallies[task])
            done += len(batch.pixels)
            progress("images", done, total)
    figures = {
        task: _figures(tally, engine.tasks[task].individual_accuracy) for task, tally in tallies.items()
    }
    report = Report(tasks=figures, average=_average(list(figures.values())))
    return Evaluation(report, {task: tally.routed_to for task, tally in tallies.items()})


def _count_batch(
    engine: Engine, encoders: dict[str, dict[str, Tensor]], task: str, batch: ImageBatch, tally: Tally
) -> None:
    info, head = engine.tasks[task], engine.head(task)
    answers = engine.classify_batch([Query(pixels) for pixels in batch.pixels]).all_answers()
    tally.add_answers(task, info.labels, batch, answers)
    named = engine.classify_batch([Query(pixels, (task,)) for pixels in batch.pixels]).all_answers()
    known = batch.targets.new_tensor([int(answer.probabilities.argmax()) for answer in named])
    tally.add_baseline("tsv_c", known, batch)
    for name, parameters in encoders.items():
        predictions = dense_predictions(engine.config, parameters, engine.preprocessing, head, batch.pixels)
        tally.add_baseline(name, predictions, batch)


def _figures(tally: Tally, individual: float | None) -> TaskFigures:
    accuracy = tally.share("mass")
    return TaskFigures(
        images=tally.images,
        accuracy=accuracy,
        normalised_accuracy=accuracy / individual if individual else None,
        router_accuracy=tally.share("router"),
        task_survival=tally.share("survival"),
        mean_set_size=tally.set_sizes / tally.images,
        baselines=Baselines(
            individual=individual,
            pretrained=tally.share("pretrained"),
            task_arithmetic=tally.share("task_arithmetic"),
            tsv_m=tally.share("tsv_m"),
            tsv_c=tally.share("tsv_c"),
        ),
    )


def _average(figures: Sequence[TaskFigures]) -> TaskFigures:
    """The unweighted mean over tasks; null where a task's figure is unknown."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    def known_mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return mean(known) if len(known) == len(values) else None

    baselines = [task["baselines"] for task in figures]
    return TaskFigures(
        images=sum(task["images"] for task in figures),
        accuracy=mean([task["accuracy"] for task in figures]),
        normalised_accuracy=known_mean([task["normalised_accuracy"] for task in figures]),
        router_accuracy=mean([task["router_accuracy"] for task in figures]),
        task_survival=mean([task["task_survival"] for task in figures]),
        mean_set_size=mean([task["mean_set_size"] for task in figures]),
        baselines=Baselines(
            individual=known_mean([b["individual"] for b in baselines]),
            pretrained=mean([b["pretrained"] for b in baselines]),
            task_arithmetic=mean([b["task_arithmetic"] for b in baselines]),
            tsv_m=mean([b["tsv_m"] for b in baselines]),
            tsv_c=mean([b["tsv_c"] for b in baselines]),
        ),
    )
