"""The flags of a build that are about one of its tasks, NAME=VALUE, put over what a recipe says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mass_serve.cli.failing import fail
from mass_serve.model_store.recipes import ModelName, NamedTask

Value = TypeVar("Value")


class FlagsOfTasks:
    """The tasks that flags speak of. A name given twice stays twice: the build has a sentence for it."""

    def __init__(
        self, tasks: Sequence[str], multi_label: Sequence[str], others: Mapping[str, Sequence[str]]
    ) -> None:
        """`others` holds what each flag was given that takes NAME=VALUE, but for `--task`."""
        self._given = [_pair("--task", text, ModelName) for text in tasks]
        self._multi_label, self._others = multi_label, others

    def over(self, written: Sequence[NamedTask]) -> list[NamedTask]:
        """Puts what was given in the place of what a recipe says of the same task, and new tasks behind."""
        names = {task.name for task in written}
        checkpoints = dict(pair for pair in self._given if pair[0] in names)
        tasks = [replace(task, checkpoint=checkpoints.get(task.name, task.checkpoint)) for task in written]
        tasks += [NamedTask(name, path) for name, path in self._given if name not in names]
        for flag, field, convert in _OF_A_TASK:
            values = _by_name(flag, self._others[flag], {task.name for task in tasks}, convert)
            tasks = [
                replace(task, **{field: values[task.name]}) if task.name in values else task for task in tasks
            ]
        for name in self._multi_label:
            _check_named("--multi-label", name, {task.name for task in tasks})
        return [
            replace(task, multi_label=task.multi_label or task.name in self._multi_label) for task in tasks
        ]


_OF_A_TASK: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("--head", "head", ModelName),
    ("--labels", "labels", ModelName),
    ("--individual-accuracy", "individual_accuracy", float),
    ("--thresholds", "thresholds", ModelName),
)


def _by_name(
    flag: str, texts: Sequence[str], names: set[str], convert: Callable[[str], Value]
) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, value in (_pair(flag, text, convert) for text in texts):
        _check_named(flag, name, names)
        if name in values:
            fail(f"{flag} {name} is given twice")
        values[name] = value
    return values


def _check_named(flag: str, name: str, names: set[str]) -> None:
    if name not in names:
        fail(f"{flag} {name}: there is no --task {name}")


def _pair(flag: str, text: str, convert: Callable[[str], Value]) -> tuple[str, Value]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        fail(f"{flag} {text!r} must have the form NAME=VALUE")
    try:
        return name, convert(value)
    except ValueError:
        fail(f"{flag} {text!r}: {value!r} is not a number")
