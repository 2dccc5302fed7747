"""The inputs that a store is calibrated on, in parts: each is judged by what the others tell."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from mass_serve.evaluation.data import input_batches
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs import InputFiles, Item, Target, TaskLabels, items_by_name
from mass_serve.evaluation.inputs.class_folders import refuse_unknown_task
from mass_serve.model_store.progress import Progress

# The inputs are judged in so many parts, each by a fit to the others, which is nearly that of them all.
FOLDS = 10


@dataclass(frozen=True)
class Given:
    """Some of the inputs, as they are read."""

    inputs: list[Tensor]
    tasks: list[str]  # of each; empty where nobody said which
    targets: list[Target | None]  # the labels of each where they were said, empty where no task was


@dataclass(frozen=True)
class CalibrationInputs:
    """Inputs in FOLDS parts, drawn at random but always alike: a listing may have tasks in turn."""

    root: Path
    files: InputFiles
    items: Sequence[Item]
    tasks: Mapping[Item, str]  # empty where nobody said which task an input is of
    targets: Mapping[Item, Target] = field(default_factory=dict)  # empty where nobody said its labels

    @classmethod
    def of_unknown_tasks(cls, place: Path, files: InputFiles) -> CalibrationInputs:
        """Every input in a folder or file."""
        root, within = (place.parent, place.name) if place.is_file() else (place, "")
        return cls(root, files, files.below(root, within), {})

    @classmethod
    def of_task_folders(cls, root: Path, files: InputFiles, names: Sequence[str]) -> CalibrationInputs:
        """The inputs in root/<task>/, or of texts in root/<task>.jsonl, of every task named.

        Raises EvaluationDataError for a folder that is named as no task, is empty, or is missing.
        """
        found = items_by_name(root, files)
        for name in found:
            refuse_unknown_task(root / name, name, names)
        _refuse_missing(root, files, names, found, "--task-folders")
        tasks = {item: name for name, items in found.items() for item in items}
        return cls(root, files, list(tasks), tasks)

    @classmethod
    def of_labelled(
        cls, root: Path, files: InputFiles, labels: Mapping[str, TaskLabels]
    ) -> CalibrationInputs:
        """The inputs in root/<task>/<class>/, or as evaluation takes them, of every task that has `labels`.

        Raises EvaluationDataError for a place that is named as no task or no class of it, and where a task
        has none.
        """
        if not root.is_dir():
            raise EvaluationDataError(f"{root} is no folder; expected {root}/{files.labelled_form}")
        found = sorted(files.labelled(root, labels), key=lambda one: (one.task, one.item.place))
        _refuse_missing(root, files, list(labels), {one.task for one in found}, "--labelled")
        return cls(
            root,
            files,
            [one.item for one in found],
            {one.item: one.task for one in found},
            {one.item: one.target for one in found},
        )

    @property
    def folds(self) -> list[list[Item]]:
        """The parts, of which some are empty where there are few inputs."""
        order = np.random.default_rng(0).permutation(len(self.items))
        return [[self.items[number] for number in order[fold::FOLDS]] for fold in range(FOLDS)]

    def batches(self, stage: str, progress: Progress) -> Iterator[Iterator[Given]]:
        """Yields the batches of each part, and reports as progress how many inputs are done."""
        done = 0

        def of_fold(fold: Sequence[Item]) -> Iterator[Given]:
            nonlocal done
            for inputs in input_batches(self.files, self.root, fold):
                own, fold = fold[: len(inputs)], fold[len(inputs) :]
                tasks = [self.tasks[item] for item in own if self.tasks]
                yield Given(inputs, tasks, [self.targets.get(item) for item in own if self.tasks])
                done += len(inputs)
                progress(stage, done, len(self.items))

        for fold in self.folds:
            yield of_fold(fold)


def _refuse_missing(
    root: Path, files: InputFiles, names: Sequence[str], found: Collection[str], option: str
) -> None:
    """Raises EvaluationDataError where a task that is routed to has no inputs."""
    if missing := [name for name in names if name not in found]:
        raise EvaluationDataError(
            f"{root} has no {files.noun} of {', '.join(missing)}: give some of every task that is"
            f" routed to, or calibrate without {option}"
        )
