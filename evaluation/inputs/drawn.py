"""Some of many labelled inputs."""

from __future__ import annotations

import random
from collections.abc import Iterable

from mass_serve.evaluation.inputs.item import Labelled


def drawn(inputs: Iterable[Labelled], most: int) -> list[Labelled]:
    """At most so many inputs of each task, evenly over its classes and at random within each; always alike.

    Files have numbers, and every second or third of them may be of one kind.
    """
    in_order = sorted(inputs, key=lambda one: (one.task, one.target, one.item.place))
    shuffled = random.Random(0).sample(in_order, len(in_order))
    of_task: dict[str, list[Labelled]] = {}
    for one in sorted(shuffled, key=lambda one: (one.task, one.target)):
        of_task.setdefault(one.task, []).append(one)
    return [one for own in of_task.values() for one in _evenly(own, most)]


def _evenly(inputs: list[Labelled], most: int) -> list[Labelled]:
    if len(inputs) <= most:
        return inputs
    return [inputs[number * len(inputs) // most] for number in range(most)]
