"""The level of a budget: which triplets of all tasks together are worth their bytes.

A triplet of a matrix of task t is worth `s^2 / (distance_t^2 bytes)`: what leaving it out would lose of the
task's change, for every byte that it saves (the distance is `||delta_t||` over what all tasks share). They
are kept from the best one on until the budget is spent. Only singular values are computed for it, and one
matrix of one task is in memory at a time on each thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mass_serve.merging.formats.ranks import level_within
from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.experts import BLOCK_DTYPES, ExpertLayout, ReadChange, ReadParameter
from mass_serve.model_store.format.rank_choice import energies_of_change
from mass_serve.model_store.format.rank_rules import triplet_bytes
from mass_serve.model_store.progress import Progress

SPECTRA = "measuring spectra"


def level_of_budget(
    layout: ExpertLayout,
    budget: float,
    pretrained: ReadParameter,
    changes: Sequence[tuple[ReadChange, float]],
    progress: Progress,
) -> float:
    """Returns the level at which the blocks of all tasks take at most `budget` bytes.

    `changes` are what each task changed, and its distance from the base.
    """
    shapes, item = layout.factoring.shapes, BLOCK_DTYPES[layout.block_dtype].itemsize

    def spectra(name: str) -> list[Tensor]:
        base = pretrained(name)
        # At distance 0 there is no energy to divide.
        return [
            energies_of_change(change(name, base)) / (distance or 1.0) ** 2 for change, distance in changes
        ]

    progress(SPECTRA, 0, len(shapes))
    energies, costs = [], []
    for done, (shape, found) in enumerate(
        zip(shapes.values(), side_by_side(spectra, shapes), strict=True), 1
    ):
        energies += found
        costs += [torch.full_like(spectrum, triplet_bytes(shape, item)) for spectrum in found]
        progress(SPECTRA, done, len(shapes))
    return level_within(torch.cat(energies), torch.cat(costs), budget)


def refuse_small_budget(layout: ExpertLayout, budget: float) -> None:
    """Raises StoreError for a budget, in bytes, that not every matrix has a triplet within."""
    item = BLOCK_DTYPES[layout.block_dtype].itemsize
    least = max(triplet_bytes(shape, item) for shape in layout.factoring.shapes.values())
    if budget < least:
        raise StoreError(
            f"the budget is {int(budget):,} bytes, and one singular vector of the largest matrix takes"
            f" {least:,}: give a larger one"
        )
