"""Inputs of one group, which are of one task: rows that follow each other, put together into batches.

A group that has more inputs than one batch may have is answered in runs of as many as fit, the same ones
whenever a job goes on: a run begins where the group does, or behind a full one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mass_serve.jobs.batches import BatchLimits, Ready


def batches_of_groups(ready: Iterable[Ready], limits: BatchLimits) -> Iterator[list[Ready]]:
    """Yields all inputs in their order in batches that divide no run; what is not to be had counts, too."""
    batch: list[Ready] = []
    for run in _runs(ready, limits):
        if batch and not _fits([*batch, *run], limits):
            yield batch
            batch = []
        batch += run
    if batch:
        yield batch


def runs_in(batch: Sequence[Ready]) -> list[list[Ready]]:
    """The runs of a batch: inputs of one group that follow each other, and others by themselves."""
    runs: list[list[Ready]] = []
    for one in batch:
        if runs and _are_of_one_group(runs[-1][-1], one):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _runs(ready: Iterable[Ready], limits: BatchLimits) -> Iterator[list[Ready]]:
    run: list[Ready] = []
    for one in ready:
        if run and not (_are_of_one_group(run[-1], one) and _fits([*run, one], limits)):
            yield run
            run = []
        run.append(one)
    if run:
        yield run


def _are_of_one_group(one: Ready, other: Ready) -> bool:
    return one.input.group is not None and one.input.group == other.input.group


def _fits(inputs: Sequence[Ready], limits: BatchLimits) -> bool:
    longest = max(one.length for one in inputs)
    return len(inputs) <= limits.inputs and len(inputs) * longest <= limits.tokens
