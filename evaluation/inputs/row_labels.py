"""The labels of a row: the one of its `label`, or any number of them in its `labels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs.item import Target
from mass_serve.evaluation.inputs.tables import shown

LABEL, LABELS = "label", "labels"
SEPARATOR = "|"  # of labels in a cell of a table
_SHOWN = 20  # labels in a message


@dataclass(frozen=True)
class TaskLabels:
    """The labels of a task, in the order of its head's rows."""

    names: Sequence[str]
    multi_label: bool  # an input has any number of them, and not one


def target_of(row: Mapping[str, object], place: str, task: str, known: TaskLabels) -> Target:
    """The labels of a row at a place, as rows of the head, ascending.

    A label is its name or, where no class is so named, its number from 0. Raises EvaluationDataError, with
    the place, for one that is neither, and for other than one label in a task that gives one.
    """
    found, labels = row.get(LABEL), row.get(LABELS)
    if not known.multi_label or labels is None:
        if known.multi_label and found is None:
            raise EvaluationDataError(f"{place}: has no labels; {task} needs a list of them, {LABELS!r}")
        return (_class_of(found, LABEL, place, task, known.names),)
    if isinstance(labels, str):
        labels = [name for name in labels.split(SEPARATOR) if name]
    if not isinstance(labels, list):
        raise EvaluationDataError(f"{place}: {LABELS!r} must be a list, not {shown(labels)}")
    return tuple(sorted({_class_of(label, LABELS, place, task, known.names) for label in labels}))


def check_label(label: object, place: str, key: str = LABEL) -> None:
    """Raises EvaluationDataError for what is neither a name nor a number."""
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise EvaluationDataError(
            f"{place}: {key!r} must be the name of a class or its number, not {shown(label)}"
        )


def _class_of(label: object, key: str, place: str, task: str, names: Sequence[str]) -> int:
    check_label(label, place, key)
    name = str(label)
    if label is not None and name in names:
        return names.index(name)
    if name.isascii() and name.isdecimal() and int(name) < len(names):
        return int(name)
    found = "no label" if label is None else f"the label {label!r}"
    some = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    raise EvaluationDataError(
        f"{place}: has {found}; {task} has {some}, or the number of one, 0 to {len(names) - 1}"
    )
