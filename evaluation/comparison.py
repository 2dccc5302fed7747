"""What flips where one revision of a store takes another's place: both answer the same inputs, one by one.

    inputs = labelled_inputs(root, before, after)
    found = compare(before, after, inputs)
    found.negative  # inputs that were answered rightly, and no longer are

An answer is right where its task and its labels are, and where it is believed: an unrouted one is not. Every
task is looked at, because a change of one moves the border to the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from mass_serve.engine import Classification, Engine, Flip, flip
from mass_serve.engine.flips import said_labels
from mass_serve.evaluation.data import input_batches, of_whole_inputs
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs import Item, TaskLabels, files_of
from mass_serve.model_store.progress import Progress, silent

# From a right answer to a wrong one, and so on; "unknown" where nobody said what is right.
Turn = Literal["right_to_wrong", "wrong_to_right", "wrong_to_wrong", "unknown"]


class Said(TypedDict):
    """An answer, or what would be a right one."""

    task: str
    labels: list[str]
    unrouted: bool


class Change(TypedDict):
    """An input that is answered otherwise."""

    input: str  # its place below the folder
    turn: Turn
    flip: Flip
    expected: Said | None
    before: Said
    after: Said


class Counts(TypedDict):
    """Numbers of inputs: of all, or of those that a task should answer or, where nobody knows, has won."""

    inputs: int
    right_before: int | None  # None where it is not known what is right
    right_after: int | None
    right_to_wrong: int
    wrong_to_right: int
    wrong_to_wrong: int
    unknown: int  # answered otherwise, and nobody knows which of both is right
    newly_unrouted: int
    no_longer_unrouted: int
    other_task: int


@dataclass(frozen=True)
class Expected:
    """An input, and what is right of it, where that is known."""

    item: Item
    answer: Said | None


@dataclass(frozen=True)
class Compared:
    """An input and both its answers."""

    expected: Expected
    before: Classification
    after: Classification

    @property
    def task(self) -> str:
        """The task under which the input is counted."""
        return self.before.task if self.expected.answer is None else self.expected.answer["task"]

    @property
    def right_before(self) -> bool:
        """Tells whether the first answer is known to be right."""
        return _said(self.before) == self.expected.answer

    @property
    def right_after(self) -> bool:
        """Tells whether the second answer is known to be right."""
        return _said(self.after) == self.expected.answer

    @property
    def flip(self) -> Flip | None:
        """What flips; None where both answers are the same."""
        return flip(self.before, self.after)

    @property
    def turn(self) -> Turn:
        """What a flip turns into what."""
        if self.expected.answer is None:
            return "unknown"
        if self.right_before:
            return "right_to_wrong"
        return "wrong_to_right" if self.right_after else "wrong_to_wrong"


@dataclass(frozen=True)
class Comparison:
    """What flips, in the order of the inputs."""

    tasks: dict[str, Counts]  # in alphabetical order
    total: Counts
    changes: list[Change]

    @property
    def negative(self) -> int:
        """How many inputs turn from right to wrong; where nobody knows what is right, all that flip count."""
        return self.total["right_to_wrong"] + self.total["unknown"]


def labelled_inputs(root: Path, before: Engine, after: Engine) -> list[Expected]:
    """The inputs of a folder with the task and labels that their places say, by their places.

    A task may have labels in one of both revisions alone. Raises EvaluationDataError for a folder that is
    missing or empty, and for a place that is named as no task or class of either.
    """
    files, labels = files_of(before), _labels_of_both(before, after)
    _refuse_no_folder(root, files.labelled_form)
    expected = [
        Expected(one.item, _said_of(one.task, [labels[one.task].names[row] for row in one.target]))
        for one in files.labelled(root, labels)
    ]
    if not expected:
        raise EvaluationDataError(f"{root} holds no {files.noun}; expected {root}/{files.labelled_form}")
    return sorted(expected, key=lambda one: one.item.place)


def unlabelled_inputs(root: Path, before: Engine) -> list[Expected]:
    """All inputs in a folder, at any depth. Raises EvaluationDataError where there is none."""
    files = files_of(before)
    _refuse_no_folder(root, files.form)
    items = files.below(root)
    if not items:
        raise EvaluationDataError(f"{root} holds no {files.noun}; expected {root}/{files.form}")
    return [Expected(item, None) for item in items]


def compare(
    before: Engine, after: Engine, root: Path, inputs: Sequence[Expected], progress: Progress = silent
) -> Comparison:
    """Asks both engines about every input, its task unknown.

    Raises EvaluationDataError for an input that cannot be read, and FloatingPointError where an engine's
    output is not finite.
    """
    counts: dict[str, Counts] = {}
    total, changes = _no_counts(), list[Change]()
    for one in _answered(before, after, root, inputs, progress):
        for own in (counts.setdefault(one.task, _no_counts()), total):
            _count(one, own)
        if (found := one.flip) is not None:
            changes.append(
                Change(
                    input=one.expected.item.place,
                    turn=one.turn,
                    flip=found,
                    expected=one.expected.answer,
                    before=_said(one.before),
                    after=_said(one.after),
                )
            )
    return Comparison(dict(sorted(counts.items())), total, changes)


def _answered(
    before: Engine, after: Engine, root: Path, inputs: Sequence[Expected], progress: Progress
) -> Iterator[Compared]:
    """Yields every input with both its answers, a batch in memory at a time."""
    readers, items = (files_of(before), files_of(after)), [one.item for one in inputs]
    # Two stores may prepare inputs each in its own way; two revisions of one do not.
    batches = input_batches(readers[0], root, items)
    others = batches if readers[0] == readers[1] else input_batches(readers[1], root, items)
    done = 0
    for own in batches:
        prepared = own, own if others is batches else next(others)
        answers = [
            engine.classify_batch([files.query(one) for one in tensors]).all_answers()
            for engine, files, tensors in zip((before, after), readers, prepared, strict=True)
        ]
        yield from map(Compared, inputs[done : done + len(own)], *answers)
        done += len(own)
        progress("comparing", done, len(inputs))


def _labels_of_both(before: Engine, after: Engine) -> dict[str, TaskLabels]:
    first, second = of_whole_inputs(before.tasks), of_whole_inputs(after.tasks)
    return {name: _merged(first.get(name), second.get(name)) for name in {**first, **second}}


def _merged(first: TaskLabels | None, second: TaskLabels | None) -> TaskLabels:
    known = [one for one in (first, second) if one is not None]
    names = dict.fromkeys(name for one in known for name in one.names)
    return TaskLabels(tuple(names), any(one.multi_label for one in known))


def _refuse_no_folder(root: Path, form: str) -> None:
    if not root.is_dir():
        raise EvaluationDataError(f"{root} is no folder; expected {root}/{form}")


def _said(answer: Classification) -> Said:
    return Said(task=answer.task, labels=list(said_labels(answer)), unrouted=answer.unrouted)


def _said_of(task: str, labels: Sequence[str]) -> Said:
    return Said(task=task, labels=sorted(labels), unrouted=False)


def _no_counts() -> Counts:
    return Counts(
        inputs=0,
        right_before=None,
        right_after=None,
        right_to_wrong=0,
        wrong_to_right=0,
        wrong_to_wrong=0,
        unknown=0,
        newly_unrouted=0,
        no_longer_unrouted=0,
        other_task=0,
    )


def _count(one: Compared, counts: Counts) -> None:
    counts["inputs"] += 1
    if one.expected.answer is not None:
        counts["right_before"] = (counts["right_before"] or 0) + one.right_before
        counts["right_after"] = (counts["right_after"] or 0) + one.right_after
    if one.flip is None:
        return
    counts[one.turn] += 1
    counts["other_task"] += one.before.task != one.after.task
    counts["newly_unrouted"] += one.flip == "unrouted"
    counts["no_longer_unrouted"] += one.flip == "routed"
