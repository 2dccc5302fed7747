"""The class that a folder is of, by its name: the label's own, or the number of the class."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs.row_labels import TaskLabels

# What stands for a character that a folder's name cannot have.
SLASH = "_"
_SHOWN = 20  # labels in a message


@dataclass(frozen=True)
class ClassFolder:
    """A folder with inputs of one class of one task."""

    path: Path
    task: str
    target: int  # the class, a row of the head


def labelled_folders(
    root: Path, labels: Mapping[str, TaskLabels], without: Collection[str] = ()
) -> Iterator[ClassFolder]:
    """Yields the folders `root/<task>/<class>` of all tasks but those `without`.

    Raises EvaluationDataError for a folder that is named as no task, or as no class of its task.
    """
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        refuse_unknown_task(folder, folder.name, labels)
        if folder.name in without:
            continue
        class_folders = sorted(path for path in folder.iterdir() if path.is_dir())
        names = [path.name for path in class_folders]
        own = labels[folder.name].names
        targets = class_of_folders(names, own)
        for class_folder in class_folders:
            target = targets.get(class_folder.name)
            if target is None:
                raise EvaluationDataError(
                    f"{class_folder} is named as no class of {folder.name}: {expected_folders(names, own)}"
                )
            yield ClassFolder(class_folder, folder.name, target)


def refuse_unknown_task(path: Path, name: str, tasks: Collection[str]) -> None:
    """Raises EvaluationDataError for a file or folder that is named as no task."""
    if name not in tasks:
        raise EvaluationDataError(f"{path} is named as no task of the store; it has {', '.join(tasks)}")


def class_of_folders(folders: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    """Returns the class, a row of the head, of each folder whose name says one.

    A folder has its label's name, where `_` may stand for `/`. Where none has, there may be a folder for each
    class, named by its number from 0 on, as many data sets come. Numbers whose order as texts is another one
    (`10` before `2`) are not taken: torchvision's ImageFolder counts classes in the order of texts, so that
    nobody could tell which of the two is meant.
    """
    classes: dict[str, int] = {}
    for target, label in enumerate(labels):
        classes.setdefault(label.replace("/", SLASH), target)
    classes |= {label: target for target, label in enumerate(labels)}
    named = {folder: classes[folder] for folder in folders if folder in classes}
    return named or _numbered(folders, len(labels))


def expected_folders(folders: Sequence[str], labels: Sequence[str]) -> str:
    """Says, of folders that are of no class, how folders for these labels are named."""
    last = len(labels) - 1
    if all(map(_is_number, folders)) and sorted(map(int, folders)) == [*range(len(labels))]:
        return (
            "its folders are numbered, but in the order of texts 10 comes before 2, and programs count them"
            f" in either: name them with leading zeros, {0:0{len(str(last))}} to {last}, or by their labels"
        )
    names = [label.replace("/", SLASH) for label in labels]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    slash = f" ({SLASH} stands for /)" if names != list(labels) else ""
    return f"it has {shown}{slash}, or a folder for each, numbered from {0:0{len(str(last))}} to {last}"


def _numbered(folders: Sequence[str], count: int) -> dict[str, int]:
    if not all(map(_is_number, folders)):
        return {}
    numbers = [int(folder) for folder in sorted(folders)]
    return {folder: int(folder) for folder in folders} if numbers == list(range(count)) else {}


def _is_number(folder: str) -> bool:
    return folder.isascii() and folder.isdecimal()
