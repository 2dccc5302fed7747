"""What lies in a folder under names: a folder or file for each domain, or for each task."""

from __future__ import annotations

from pathlib import Path

from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs.files import InputFiles, Item


def items_by_name(root: Path, files: InputFiles) -> dict[str, list[Item]]:
    """The inputs of every folder or file in `root`, by its name without an ending, in alphabetical order.

    Files without any are left out, such as notes. Raises EvaluationDataError for a folder without any, where
    there is none with some, and for two of one name.
    """
    places = sorted(root.iterdir()) if root.is_dir() else []
    found: dict[str, list[Item]] = {}
    for place in places:
        items, name = files.below(root, place.name), place.name if place.is_dir() else place.stem
        if place.is_dir() and not items:
            raise EvaluationDataError(f"{place} holds no {files.noun}: add some, or delete it")
        if items and name in found:
            raise EvaluationDataError(f"{root} has {name} twice: it may be one file, or one folder")
        if items:
            found[name] = items
    if not found:
        raise EvaluationDataError(f"{root} holds no {files.noun}; expected {root}/<name>/{files.form}")
    return found
