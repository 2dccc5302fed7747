"""The subspaces that shares of energy are measured in: of every task at one linear, each of its own rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.kernels import TaskDirections, widened
from mass_serve.router.projection import orthonormal_rows

# Of the largest singular value. What rounding leaves of a change of lower rank is a thousand times less;
# of fine-tuned matrices the last kept value was at least a fiftieth.
LEAST_VALUE = 1e-3
# Of the width D: so many directions are kept in float32, which whole fine-tunings of rank 1/T do not reach.
# More are kept in float16. That changes a score by about 1e-3, and so many parts of bfloat16 would take twice
# the memory.
MOST_FULL = 4
# Of a change's energy: blocks that keep as much hold all of it but for rounding.
WHOLE_CHANGE = 0.9999


@dataclass(frozen=True)
class LinearSubspaces:
    """The right singular vectors of T tasks' changes of one linear."""

    # Orthonormal rows of each task. Where profiles are measured their weights are its singular values, which
    # sum to 1.
    directions: TaskDirections

    @classmethod
    def of(
        cls,
        blocks: Sequence[Tensor],
        singular_values: Sequence[Tensor],
        *,
        profiled: bool,
        in_parts: bool = False,
    ) -> LinearSubspaces:
        """Makes the subspaces of vh [R_t, D] and descending s [R_t] of each task.

        With `in_parts` they are kept in two parts of bfloat16, for a GPU on which inputs are bfloat16.
        """
        ranks = list(map(own_rank, singular_values))
        rows = _orthonormal([block[:rank] for block, rank in zip(blocks, ranks, strict=True)])
        if not profiled:
            return cls._laid_down(rows, in_parts=in_parts)
        values = [own[:rank].float() for own, rank in zip(singular_values, ranks, strict=True)]
        return cls._laid_down(rows, [own / own.sum() for own in values], in_parts=in_parts)

    @classmethod
    def joined(cls, parts: Sequence[LinearSubspaces]) -> LinearSubspaces:
        """The subspaces of all tasks of several at one linear, none of which has profiles."""
        return cls._laid_down([rows for part in parts for rows in part.of_tasks()])

    @classmethod
    def _laid_down(
        cls, rows: Sequence[Tensor], weights: Sequence[Tensor] | None = None, *, in_parts: bool = False
    ) -> LinearSubspaces:
        many = sum(map(len, rows)) > MOST_FULL * rows[0].shape[1]
        full = torch.bfloat16 if in_parts else torch.float32
        return cls(TaskDirections.of(rows, weights, torch.float16 if many else full))

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of each task, [T]: 0 where it left the matrix alone."""
        return self.directions.ranks

    def of_tasks(self) -> list[Tensor]:
        """The orthonormal rows [R_t, D] float32 of each task."""
        return list(torch.split(widened(self.directions.rows[: sum(self.ranks)]), list(self.ranks)))


def _orthonormal(blocks: Sequence[Tensor]) -> list[Tensor]:
    """An orthonormal basis [R_t, D], float32, of each block's rows; those of one rank are made together."""
    bases = list(blocks)
    for rank in {*map(len, blocks)}:
        alike = [task for task, block in enumerate(blocks) if len(block) == rank]
        together = orthonormal_rows(torch.stack([blocks[task] for task in alike]))
        for task, basis in zip(alike, together, strict=True):
            bases[task] = basis
    return bases


def own_rank(singular_values: Tensor) -> int:
    """How many directions a change has of its own; s [R], descending.

    In blocks that were filled up to one rank of all tasks, an adapter's last directions mean nothing.
    """
    if not len(singular_values) or not bool(singular_values[0] > 0):
        return 0
    return int((singular_values > LEAST_VALUE * singular_values[0]).sum())


def is_of_low_rank(rank: int, full_rank: int, energy_kept: float | None) -> bool:
    """Tells whether blocks of `rank` hold a whole change of a matrix that has more directions.

    `energy_kept` is the share of the change that the blocks keep, None where that is unknown.
    """
    return rank < full_rank and energy_kept is not None and energy_kept >= WHOLE_CHANGE
