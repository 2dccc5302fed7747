"""The subspaces that shares of energy are measured in: of every task at one linear, each of its own rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.router.projection import orthonormal_rows

# Of the largest singular value. What rounding leaves of a change of lower rank is a thousand times less;
# of fine-tuned matrices the last kept value was at least a fiftieth.
LEAST_VALUE = 1e-3
# Of a change's energy: blocks that keep as much hold all of it but for rounding.
WHOLE_CHANGE = 0.9999


@dataclass(frozen=True)
class LinearSubspaces:
    """The right singular vectors of T tasks' changes of one linear."""

    # [T, R, D] float32: orthonormal rows, and zeros below those of a task with fewer than R. Where profiles
    # are measured [2 T, R, D]: the same rows once more, times the root of their share of the singular values.
    projectors: Tensor
    ranks: tuple[int, ...]  # [T]: 0 where a task left the matrix alone

    @classmethod
    def of(
        cls, blocks: Sequence[Tensor], singular_values: Sequence[Tensor], *, profiled: bool
    ) -> LinearSubspaces:
        """Makes the subspaces of vh [R_t, D] and descending s [R_t] of each task."""
        ranks = tuple(map(own_rank, singular_values))
        room = blocks[0].new_zeros(len(ranks), max(ranks), blocks[0].shape[1], dtype=torch.float32)
        scales = room.new_zeros(room.shape[:2])
        for task, rank in enumerate(ranks):
            if rank:
                room[task, :rank] = orthonormal_rows(blocks[task][None, :rank])[0]
                own = singular_values[task][:rank].float()
                scales[task, :rank] = (own / own.sum()).sqrt()
        if profiled:
            room = torch.cat([room, room * scales.unsqueeze(2)])
        return cls(room, ranks)

    @classmethod
    def joined(cls, parts: Sequence[LinearSubspaces]) -> LinearSubspaces:
        """The subspaces of all tasks of several at one linear, none of which has profiles."""
        bases = [basis for part in parts for basis in part.projectors]
        ranks = tuple(rank for part in parts for rank in part.ranks)
        return cls(torch.nn.utils.rnn.pad_sequence(bases, batch_first=True), ranks)


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
