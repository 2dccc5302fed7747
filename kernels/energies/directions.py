"""The directions of many tasks at one linear: what energies are measured along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

# A product takes 16 columns without a copy. A sum over tokens has one order for each group of 64 columns, as
# four vectors of the widest kind hold, and another for those that are left.
ROW_MULTIPLE = 64


@dataclass(frozen=True, eq=False)
class TaskDirections:
    """Orthonormal rows of T tasks, one task's below the other's, as many as each has.

    They are laid down once, in a shape that a product takes without a copy.
    """

    # [C, D] float32 or float16; C is the sum of the ranks, with zeros up to a multiple of 64
    rows: Tensor
    ranks: tuple[int, ...]  # [T]
    offsets: Tensor  # [T + 1] int32: task t has the rows offsets[t]:offsets[t + 1]
    owners: Tensor  # [sum of the ranks] int64: the task of each row
    weights: Tensor | None  # [sum of the ranks] float32: of each row in a profile; None: no profiles

    @classmethod
    def of(
        cls,
        rows: Sequence[Tensor],
        weights: Sequence[Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> TaskDirections:
        """Lays down the rows [R_t, D] of each task, and the weights [R_t] of them, kept in `dtype`."""
        ranks = tuple(map(len, rows))
        ends = [*accumulate(ranks, initial=0)]
        together = rows[0].new_zeros(_padded(ends[-1]), rows[0].shape[1], dtype=dtype)
        together[: ends[-1]] = torch.cat(list(rows))
        return cls(
            together,
            ranks,
            torch.tensor(ends, dtype=torch.int32, device=together.device),
            torch.arange(len(ranks)).repeat_interleave(torch.tensor(ranks)).to(together.device),
            None if weights is None else torch.cat(list(weights)).float(),
        )

    @property
    def width(self) -> int:
        """D, the width of what is measured."""
        return self.rows.shape[1]

    @property
    def columns(self) -> int:
        """How many energies a sample has: T, or with profiles 2 T."""
        return len(self.ranks) * (1 if self.weights is None else 2)

    @property
    def nbytes(self) -> int:
        """The memory of the rows."""
        return self.rows.nbytes

    def select(self, tasks: Tensor) -> TaskDirections:
        """The directions of the tasks that `tasks` [n] int64 numbers, in that order; each is copied."""
        ranks = torch.tensor(self.ranks)[tasks]
        ends = ranks.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        starts = torch.tensor([*accumulate(self.ranks, initial=0)])[tasks]
        places = torch.arange(total) + (starts - ends + ranks).repeat_interleave(ranks)
        places = places.to(self.rows.device)
        rows = self.rows.new_zeros(_padded(total), self.width)
        torch.index_select(self.rows, 0, places, out=rows[:total])
        return TaskDirections(
            rows,
            tuple(ranks.tolist()),
            F.pad(ends, (1, 0)).to(self.offsets),
            torch.arange(len(ranks)).repeat_interleave(ranks).to(self.owners.device),
            None if self.weights is None else self.weights[places],
        )

    def sums(self, along: Tensor) -> Tensor:
        """The sums over each task's rows of what lies along each [B, C], [B, T]; then the weighted ones."""
        samples, count = along.shape[0], self.owners.shape[0]
        own, owners = along[:, :count], self.owners.expand(samples, -1)
        room = along.new_zeros(samples, len(self.ranks))
        plain = room.scatter_add(1, owners, own)
        if self.weights is None:
            return plain
        return torch.cat([plain, room.scatter_add(1, owners, own * self.weights)], dim=1)


def _padded(rows: int) -> int:
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE
