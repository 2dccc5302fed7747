"""Divides labelled examples into those to learn from, to calibrate with and to measure on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeVar

Split = Literal["evaluation", "tuning", "training"]
# Of each task: the share of its examples at which a split ends.
ENDS: Mapping[Split, float] = {"evaluation": 0.2, "tuning": 0.3, "training": 1.0}


class Example(Protocol):
    """One labelled example. Examples of one group are alike, and are therefore in one split."""

    @property
    def label(self) -> str: ...

    @property
    def group(self) -> str: ...


Some = TypeVar("Some", bound=Example)


def divide(examples: Sequence[Some], limits: Mapping[Split, int]) -> dict[Split, list[Some]]:
    """The examples of each split, the same ones every time: groups in the order of their hashes.

    A split takes at most `limits` of them. A label has the same number of examples in a split as any other
    label, or all that there are.
    """
    ordered = sorted(examples, key=lambda example: (_hashed(example.group), example.group))
    sizes = Counter(example.group for example in examples)
    labels = len({example.label for example in examples})
    taken: dict[Split, list[Some]] = {split: [] for split in ENDS}
    counts: Counter[tuple[Split, str]] = Counter()
    begun, last = 0, ""
    for example in ordered:
        if last and example.group != last:
            begun += sizes[last]
        last = example.group
        split = _split_at(begun / len(examples))
        if counts[split, example.label] < -(-limits[split] // labels):
            counts[split, example.label] += 1
            taken[split].append(example)
    return taken


def _split_at(position: float) -> Split:
    """The split of a group that begins at this share of all examples."""
    return next(split for split, end in ENDS.items() if position < end)


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
