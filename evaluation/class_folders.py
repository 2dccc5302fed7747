"""The class that a folder of images is of, by its name: the label's own, or the number of the class."""

from __future__ import annotations

from collections.abc import Sequence

# What stands for a character that a folder's name cannot have.
SLASH = "_"


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


def _numbered(folders: Sequence[str], count: int) -> dict[str, int]:
    if not all(folder.isascii() and folder.isdecimal() for folder in folders):
        return {}
    numbers = [int(folder) for folder in sorted(folders)]
    return {folder: int(folder) for folder in folders} if numbers == list(range(count)) else {}
