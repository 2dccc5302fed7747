"""The inputs of an evaluation, whose list is on disk: a batch of them is in memory at a time."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.index import Selection, index_inputs, next_inputs
from mass_serve.evaluation.inputs import InputFiles, Item, Target, TaskLabels, drawn
from mass_serve.jobs.journal import open_journal
from mass_serve.model_store.format.entries import TaskEntry

BATCH_INPUTS = 64


@dataclass(frozen=True)
class InputBatch:
    """Inputs of one half of one task's inputs, and their classes."""

    task: str
    half: int
    ids: list[int]  # in the index
    inputs: list[Tensor]  # as `InputFiles.read` gives them
    targets: list[Target]  # of each


class EvaluationData:
    """The labelled inputs of a folder, by task.

    Every task's inputs fall into two halves, alternately within each class, so that what is tuned on one
    half can be measured on the other.
    """

    def __init__(
        self,
        root: Path,
        labels: Mapping[str, TaskLabels],
        files: InputFiles,
        journal: Path | None = None,
        most: int | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        """`labels` has those of each task of the store; `journal` is the database to index in.

        Inputs of other tasks than `only` these are passed over.
        Without `journal` it is a temporary one. With `most`, at most so many inputs of each task are drawn,
        of a list that is in memory. Raises EvaluationDataError for a folder that is missing or
        empty, or named as no task or class, and for a journal that was begun with other inputs.
        """
        expected = f"expected {root}/{files.labelled_form}"
        if not root.is_dir():
            raise EvaluationDataError(f"{root} is no folder; {expected}")
        self.root, self.files = root, files
        try:
            self.database = open_journal(journal)
            weakref.finalize(self, self.database.close)
            labelled = files.labelled(root, labels)
            if only is not None:
                labelled = (one for one in labelled if one.task in only)
            changed = index_inputs(self.database, labelled if most is None else drawn(labelled, most))
        except sqlite3.DatabaseError as error:
            raise EvaluationDataError(f"{journal} cannot be used as a journal: {error}") from error
        if changed is not None:
            raise EvaluationDataError(
                f"{journal} was begun with other {files.noun} ({changed} differs): delete it, or name another"
            )
        rows = self.database.execute("SELECT task, COUNT(*) FROM inputs GROUP BY task ORDER BY task")
        self._counts: dict[str, int] = dict(rows)
        if not self._counts:
            raise EvaluationDataError(f"{root} holds no {files.noun}; {expected}")

    @property
    def tasks(self) -> list[str]:
        """The tasks that have inputs, in alphabetical order."""
        return list(self._counts)

    def count(self, task: str) -> int:
        """The number of inputs that a task has."""
        return self._counts[task]

    def batches(self, selection: Selection) -> Iterator[InputBatch]:
        """Yields the selected inputs in batches. Raises EvaluationDataError for one that cannot be read."""
        last, left = 0, selection.limit
        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="read") as pool:
            while rows := next_inputs(self.database, selection, last, min(BATCH_INPUTS, left)):
                ids, targets, items = zip(*rows, strict=True)
                inputs = list(pool.map(lambda item: self.files.read(self.root, item), items))
                yield InputBatch(selection.task, selection.half, list(ids), inputs, list(targets))
                last, left = ids[-1], left - len(ids)


def of_whole_inputs(tasks: Mapping[str, TaskEntry]) -> dict[str, TaskLabels]:
    """The labels of the tasks that are measured: one that classifies tokens has no label of a text."""
    return {
        name: TaskLabels(task.labels, task.head.is_multi_label)
        for name, task in tasks.items()
        if not task.head.each_token
    }


def input_batches(files: InputFiles, root: Path, items: Sequence[Item]) -> Iterator[list[Tensor]]:
    """Yields the inputs, `BATCH_INPUTS` at a time, in their order.

    Raises EvaluationDataError for one that cannot be read.
    """
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="read") as pool:
        for start in range(0, len(items), BATCH_INPUTS):
            yield list(pool.map(lambda item: files.read(root, item), items[start : start + BATCH_INPUTS]))
