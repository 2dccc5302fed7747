"""Images in DATA/<task>/ whose labels a metadata.jsonl or .csv beside them has, a row for each image.

It is the form of Hugging Face's `imagefolder`, by which one image may have any number of labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs.item import Item, Labelled
from mass_serve.evaluation.inputs.row_labels import TaskLabels, target_of
from mass_serve.evaluation.inputs.tables import SUFFIXES, shown, table_rows

NAME, FILE = "metadata", "file_name"
_EXAMPLE = '{"file_name": "a.png", "labels": ["..."]}'


def listed_images(root: Path, labels: Mapping[str, TaskLabels]) -> dict[str, Iterator[Labelled]]:
    """The images of every task whose folder has such a table, in the order of its rows.

    Raises EvaluationDataError for a folder that has two of them; while they are yielded, with file and line,
    for a row without an image, or whose labels are none of the task.
    """
    found = {}
    for task in labels:
        tables = [path for suffix in SUFFIXES if (path := root / task / f"{NAME}{suffix}").exists()]
        if len(tables) > 1:
            raise EvaluationDataError(
                f"{root / task} has {len(tables)} files named {NAME}: leave one of them"
            )
        if tables:
            found[task] = _images(tables[0], task, labels[task])
    return found


def item_of_file(place: str, status: os.stat_result) -> Item:
    """An image's file, which is read later."""
    return Item(place, f"{status.st_size} {status.st_mtime_ns}")


def _images(table: Path, task: str, known: TaskLabels) -> Iterator[Labelled]:
    lines: dict[str, int] = {}
    for line, row in table_rows(table, FILE, _EXAMPLE):
        where, name = f"{table}:{line}", row.get(FILE)
        if not isinstance(name, str):
            raise EvaluationDataError(f"{where}: {FILE!r} must be the name of an image, and is {shown(name)}")
        path = table.parent / name
        if not path.is_file():
            raise EvaluationDataError(f"{where}: {path} does not exist")
        place = f"{task}/{name}"
        if lines.setdefault(place, line) != line:
            raise EvaluationDataError(f"{where}: has {name} again, as line {lines[place]} has")
        yield Labelled(task, target_of(row, where, task, known), item_of_file(place, path.stat()))
