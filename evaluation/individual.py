"""The accuracy of fine-tuned models on their own, measured while their store is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mass_serve.engine.loading import classification_head
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.evaluation.data import EvaluationData
from mass_serve.evaluation.index import HALVES, Selection
from mass_serve.evaluation.inputs import ImageFiles, InputFiles, TaskLabels, TextFiles
from mass_serve.evaluation.methods import dense_logits, labels_of
from mass_serve.inputs.texts import TextTokenizer
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.format.origin import Origin
from mass_serve.model_store.format.preprocessing import TextPreprocessing
from mass_serve.model_store.plan import BuildPlan, PlannedTask, TaskInput, plan_build
from mass_serve.model_store.prepared import Prepared
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
    """The tasks of a build with their accuracies on the inputs of `root`, where they have any there.

    An accuracy that was given stays. `origin` is the pretrained model's. Raises StoreError for inputs that
    the build would refuse, and EvaluationDataError for a folder that does not fit the tasks.
    """
    plan = plan_build(pretrained, tasks, options, MODE_NAMES, origin)
    # What is measured is one class of an input, which tasks that classify tokens do not give.
    labels = {
        task.name: TaskLabels(task.labels, task.head.spec.is_multi_label)
        for task in plan.tasks
        if not task.head.each_token
    }
    data = EvaluationData(root, labels, _files(plan.prepared))
    measured = []
    for task, planned in zip(tasks, plan.tasks, strict=True):
        if task.individual_accuracy is None and task.name in data.tasks:
            task = replace(task, individual_accuracy=_accuracy(plan, planned, data, progress))
        measured.append(task)
    return measured


def _files(prepared: Prepared) -> InputFiles:
    """Files of what the store that is to be built will read."""
    if isinstance(prepared.preprocessing, TextPreprocessing):
        assert prepared.tokenizer is not None  # the plan was refused otherwise
        described = prepared.preprocessing
        return TextFiles(TextTokenizer(prepared.tokenizer.content, described.max_tokens, described.cut_end))
    return ImageFiles(ImagePreprocessor(prepared.preprocessing))


def _accuracy(
    plan: BuildPlan,
    task: PlannedTask,
    data: EvaluationData,
    progress: Progress,
) -> float:
    """The share of the task's inputs of which its own fine-tuned model and head get every label right."""
    architecture = task.checkpoint.architecture
    read = task.checkpoint.over(plan.pretrained.parameter)
    parameters = {name: read(name).float() for name in architecture.parameter_shapes()}
    head = classification_head(task.head)
    right = done = 0
    total = data.count(task.name)
    for half in HALVES:
        for batch in data.batches(Selection(task.name, half)):
            logits = dense_logits(architecture, parameters, data.files, head, batch.inputs)
            given = [labels_of(row, head.labelling) for row in logits]
            right += sum(own == target for own, target in zip(given, batch.targets, strict=True))
            done += len(batch.inputs)
            progress(f"measuring {task.name}", done, total)
    return right / total
