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

    They are laid down once, in a shape that a product takes without a copy. In bfloat16 a row p has two
    parts, one behind the other, which are added: high = bf16(p) and low = bf16(p - high), together within
    2^-16 |p| of it. They take the memory of float32, and two products of the tensor cores.
    """

    # [C, D] float32 or float16, or [C, 2 D] bfloat16, the two parts of each row; C is the sum of the ranks,
    # with zeros up to a multiple of 64
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
        own = torch.cat(list(rows))
        kept = _in_parts(own) if dtype == torch.bfloat16 else own
        together = kept.new_zeros(_padded(ends[-1]), kept.shape[1], dtype=dtype)
        together[: ends[-1]] = kept
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
        return self.rows.shape[1] // (2 if self.in_parts else 1)

    @property
    def in_parts(self) -> bool:
        """Tells whether rows are kept in two parts of bfloat16."""
        return self.rows.dtype == torch.bfloat16

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
        rows = self.rows.new_zeros(_padded(total), self.rows.shape[1])
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


def widened(rows: Tensor) -> Tensor:
    """Rows of `TaskDirections` as [n, D] float32, their parts added."""
    if rows.dtype != torch.bfloat16:
        return rows.float()
    high, low = rows.float().chunk(2, dim=1)
    return high + low


def _in_parts(rows: Tensor) -> Tensor:
    """Rows [n, D] as their two parts, [n, 2 D] bfloat16."""
    wide = rows.float()
    high = wide.bfloat16()
    return torch.cat([high, (wide - high.float()).bfloat16()], dim=1)


def _padded(rows: int) -> int:
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE
