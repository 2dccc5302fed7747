"""The accuracy of fine-tuned models on their own, measured while their store is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mass_serve.engine.loading import classification_head
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.evaluation.images import EvaluationData
from mass_serve.evaluation.index import HALVES, Selection
from mass_serve.evaluation.methods import dense_logits
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.origin import Origin
from mass_serve.model_store.format.preprocessing import TextPreprocessing
from mass_serve.model_store.plan import BuildPlan, PlannedTask, TaskInput, plan_build
from mass_serve.model_store.progress import Progress, silent
from mass_serve.router import MODE_NAMES


def with_individual_accuracies(
    pretrained: Path,
    tasks: Sequence[TaskInput],
    options: BuildOptions,
    root: Path,
    progress: Progress = silent,
    origin: Origin | None = None,
) -> list[TaskInput]:
    """The tasks of a build with their accuracies on the images of `root`, where they have images there.

    An accuracy that was given stays. `origin` is the pretrained model's. Raises StoreError for inputs that
    the build would refuse, and EvaluationDataError for a folder that does not fit the tasks.
    """
    plan = plan_build(pretrained, tasks, options, MODE_NAMES, origin)
    if isinstance(plan.prepared.preprocessing, TextPreprocessing):
        raise StoreError("accuracies are measured on images, and the pretrained model reads texts: give them")
    preprocessing = ImagePreprocessor(plan.prepared.preprocessing)
    data = EvaluationData(root, {task.name: task.labels for task in plan.tasks})
    measured = []
    for task, planned in zip(tasks, plan.tasks, strict=True):
        if task.individual_accuracy is None and task.name in data.tasks:
            task = replace(task, individual_accuracy=_accuracy(plan, planned, preprocessing, data, progress))
        measured.append(task)
    return measured


def _accuracy(
    plan: BuildPlan,
    task: PlannedTask,
    preprocessing: ImagePreprocessor,
    data: EvaluationData,
    progress: Progress,
) -> float:
    """The share of the task's images that its own fine-tuned model and head get right."""
    architecture = task.checkpoint.architecture
    read = task.checkpoint.over(plan.pretrained.parameter)
    parameters = {name: read(name).float() for name in architecture.parameter_shapes()}
    head = classification_head(task.head)
    right = done = 0
    total = data.count(task.name)
    for half in HALVES:
        for batch in data.batches(Selection(task.name, half), preprocessing):
            logits = dense_logits(architecture, parameters, preprocessing, head, batch.pixels)
            right += int((logits.argmax(1) == batch.targets).sum())
            done += len(batch.pixels)
            progress(f"measuring {task.name}", done, total)
    return right / total
