"""Inputs that are ready, put together into full batches: of texts those of about one length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mass_serve.engine import PreparedInput
from mass_serve.inputs.texts import Tokens
from mass_serve.jobs.sources import JobInput

# So many batches' texts are sorted at a time: with more of them fewer lengths meet in a batch, and what a
# killed job has to do again grows.
SORTED_BATCHES = 16


@dataclass(frozen=True, slots=True)
class Ready:
    """An input, and what the engine takes of it or why it takes nothing."""

    input: JobInput
    prepared: PreparedInput | None
    problem: str = ""

    @property
    def length(self) -> int:
        """The tokens of a text; images are all alike."""
        return len(self.prepared.words) if isinstance(self.prepared, Tokens) else 0


@dataclass(frozen=True)
class BatchLimits:
    """How much goes into one batch."""

    inputs: int
    tokens: int  # of texts
    sorted_batches: int = 1  # how many batches' inputs are sorted by length together

    @property
    def window(self) -> int:
        """The inputs that are sorted together."""
        return self.inputs * self.sorted_batches


def batches(ready: Iterable[Ready], limits: BatchLimits) -> Iterator[list[Ready]]:
    """Yields all inputs in batches; those that are not to be had are in the batch of their neighbours."""
    window: list[Ready] = []
    usable = 0
    for one in ready:
        window.append(one)
        usable += one.prepared is not None
        # A run of what cannot be read is told of, too, before it is long.
        if usable == limits.window or len(window) == 2 * limits.window:
            yield from _cut(window, limits)
            window, usable = [], 0
    yield from _cut(window, limits)


def _cut(window: Sequence[Ready], limits: BatchLimits) -> Iterator[list[Ready]]:
    batch: list[Ready] = []
    for one in sorted(window, key=lambda one: one.length):
        full = len(batch) == limits.inputs or (len(batch) + 1) * one.length > limits.tokens
        if batch and full:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch
