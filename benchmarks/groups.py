"""Measures what `same_task` gains, and what it costs where it is not true, on every suite.

    python -m benchmarks.groups SUITES --json benchmarks/results/groups.json [--only NAME ...]

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them, whose stores are taken
as if they had not been calibrated. At most 120 inputs of each task of the `evaluation` part are asked about,
in requests of n inputs: all of one task, half of them of another, or one of another. Inputs are shuffled,
always in the same way; what is left over is not asked about. Shares are averaged over the tasks, passes over
inputs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.accuracy.measure import MOST, variants_of
from benchmarks.by_suite import asked_suites
from mass_serve.engine import Engine, Question
from mass_serve.evaluation.data import input_batches, of_whole_inputs
from mass_serve.evaluation.inputs import drawn, files_of
from mass_serve.router import ModeName

MODES: tuple[ModeName, ...] = ("exact", "fast")
SIZES = (1, 2, 4, 8, 16)
MIXED_SIZES = (4, 16)
MIXED_GROUPS = 120  # of each suite, size and kind
AT_ONCE = 64  # inputs in one call of the engine, which changes no answer
PLACES = 4


@dataclass(frozen=True)
class Input:
    """One input, ready for the engine, and what it is."""

    prepared: Tensor
    task: str
    label: int


@dataclass(frozen=True)
class Answered:
    """What became of one input of a group."""

    task: str  # its own
    task_right: bool
    right: bool  # the label, too
    passes: float
    part: int | None


Group = Sequence[Input]


def inputs_of(engine: Engine, root: Path) -> list[Input]:
    """The inputs of a suite's part, the same in every mode."""
    files = files_of(engine)
    chosen = drawn(files.labelled(root, of_whole_inputs(engine.tasks)), MOST)
    tensors = [one for batch in input_batches(files, root, [one.item for one in chosen]) for one in batch]
    return [Input(tensor, one.task, one.target[0]) for tensor, one in zip(tensors, chosen, strict=True)]


def groups_of_one_task(inputs: Sequence[Input], size: int) -> Iterator[Group]:
    """All inputs in groups of one task each."""
    for own in _by_task(inputs).values():
        shuffled = random.Random(0).sample(own, len(own))
        yield from (shuffled[at : at + size] for at in range(0, len(own) - size + 1, size))


def groups_of_two_tasks(inputs: Sequence[Input], size: int, strangers: int) -> Iterator[Group]:
    """Groups of which so many inputs are of another task than the rest."""
    chance, by_task = random.Random(0), _by_task(inputs)
    for _ in range(MIXED_GROUPS):
        most, other = chance.sample(sorted(by_task), 2)
        group = chance.sample(by_task[most], size - strangers) + chance.sample(by_task[other], strangers)
        yield chance.sample(group, size)


def _by_task(inputs: Sequence[Input]) -> dict[str, list[Input]]:
    names = dict.fromkeys(one.task for one in inputs)
    return {name: [one for one in inputs if one.task == name] for name in names}


def known_accuracy(engine: Engine, inputs: Sequence[Input]) -> float:
    """How often the label is right where the task is named, averaged over tasks: what no routing exceeds."""
    shares = []
    for name, own in _by_task(inputs).items():
        right = []
        for at in range(0, len(own), AT_ONCE):
            some = own[at : at + AT_ONCE]
            queries = Question((name,)).queries([one.prepared for one in some], engine.tasks)
            answers = engine.classify_batch(queries).all_answers()
            right += [
                int(answer.logits.argmax()) == one.label for one, answer in zip(some, answers, strict=True)
            ]
        shares.append(fmean(right))
    return fmean(shares)


def answered(engine: Engine, groups: Iterator[Group]) -> list[list[Answered]]:
    """What is answered about groups that are all said to be of one task each."""
    question, found = Question(same_task=True), []
    while some := _next_groups(groups):
        queries = [
            query
            for group in some
            for query in question.queries([one.prepared for one in group], engine.tasks)
        ]
        answers = iter(engine.classify_batch(queries).all_answers())
        for group in some:
            own = []
            for one, answer in zip(group, islice(answers, len(group)), strict=True):
                is_task = answer.task == one.task
                is_label = is_task and int(answer.logits.argmax()) == one.label
                own.append(Answered(one.task, is_task, is_label, answer.passes, answer.part))
            found.append(own)
    return found


def _next_groups(groups: Iterator[Group]) -> list[Group]:
    """The next groups, which have AT_ONCE inputs together."""
    some: list[Group] = []
    for group in groups:
        some.append(group)
        if sum(map(len, some)) >= AT_ONCE:
            break
    return some


def figures(groups: Sequence[Sequence[Answered]], individual: float) -> dict[str, float]:
    """What is told of the groups of one size and kind."""
    every = [one for group in groups for one in group]
    tasks = sorted({one.task for one in every})
    accuracy = fmean(fmean(one.right for one in every if one.task == task) for task in tasks)
    task_right = fmean(fmean(one.task_right for one in every if one.task == task) for task in tasks)
    told = {
        "inputs": len(every),
        "task_right": task_right,
        "accuracy": accuracy,
        "normalised_accuracy": accuracy / individual,
        "split": fmean(any(one.part for one in group) for group in groups),
        "passes": fmean(one.passes for one in every),
    }
    return {name: round(value, PLACES) for name, value in told.items()}


def measured(suite: Path) -> dict[str, Any]:
    """All figures of a suite's folder."""
    variants = variants_of(suite / "store", calibrated=False)
    found: dict[str, Any] = {"modes": {}}
    for mode in MODES:
        engine = variants.engine(mode)
        inputs = inputs_of(engine, suite / "evaluation")
        known = [entry.individual_accuracy for entry in engine.tasks.values()]
        individual = fmean(one for one in known if one is not None)
        found |= {"tasks": len(engine.tasks), "inputs": len(inputs), "individual": round(individual, PLACES)}
        found["task_named"] = round(known_accuracy(engine, inputs) / individual, PLACES)
        found["modes"][mode] = {
            "one_task": {
                str(size): figures(answered(engine, groups_of_one_task(inputs, size)), individual)
                for size in SIZES
            },
            "two_tasks": {
                f"{strangers} of {size}": figures(
                    answered(engine, groups_of_two_tasks(inputs, size, strangers)), individual
                )
                for size in MIXED_SIZES
                for strangers in (1, size // 2)
            },
        }
    return found


def main() -> None:
    """Prints a line for each suite, mode and size."""
    torch.set_num_threads(1)
    asked = asked_suites(__doc__)
    for suite in asked.suites:
        found = measured(suite)
        for mode, kinds in found["modes"].items():
            for kind, sizes in kinds.items():
                for size, one in sizes.items():
                    print(
                        f"{suite.name}, {mode}, {kind}, {size}: task right {one['task_right']:.3f},"
                        f" {one['normalised_accuracy']:.3f} of the individual accuracy, split"
                        f" {one['split']:.3f}, {one['passes']:.2f} passes",
                        flush=True,
                    )
        asked.record(suite.name, found)


if __name__ == "__main__":
    main()
