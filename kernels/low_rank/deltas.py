"""What a segment's experts change in one linear: one type for each form that a change has.

    W_i = W                            `BaseOnly`
    W_i = W + U_t diag(s) V_t          `OneTask`
    W_i = W + U_i L M V_i              `SeveralTasks`
    W_i = W + left^T right             `FoldedSides`
    W_i                                `MaterialisedWeight`

U_t and V_t are a task's resident blocks, U_i and V_i those of several tasks side by side. L, M and the folded
sides are those of `merging.methods.tsv_m` and of `folded_sides` here. Each form also has the segment's bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from mass_serve.kernels.rows import padded_column_count


@dataclass(frozen=True, eq=False)
class TaskBlocks:
    """The singular blocks of one matrix, of all tasks: resident once, shared by every expert set.

    They lie one below the other. Task t has `ranks[t]` of the rows: from 0, where it left the matrix alone,
    to all that the matrix has.
    """

    u_t: Tensor  # [K, d_out]: U_t^T of each task, K the sum of the ranks
    vh: Tensor  # [K, d_in]: V_t of each task
    ranks: tuple[int, ...]  # [T]

    @cached_property
    def places(self) -> list[slice]:
        """The rows of each task."""
        ends = list(accumulate(self.ranks))
        return [slice(end - rank, end) for end, rank in zip(ends, self.ranks, strict=True)]

    @cached_property
    def expand_operands(self) -> list[Tensor]:
        """U_t^T [R_t, d_out] of each task (views)."""
        return [self.u_t[place] for place in self.places]

    @cached_property
    def shrink_operands(self) -> list[tuple[Tensor, slice]]:
        """For each task a matrix [d_in, n] (a view), and which of its columns are V_t^T.

        A product needs a certain number of columns for stable rows (see `kernels.rows`). V_t's neighbours
        in memory are rows of other tasks: taking a few of them along fills the columns up without a copy.
        """
        return [self._with_neighbours(place) for place in self.places]

    def leading_rows(self, tasks: Sequence[int]) -> Tensor:
        """The first rows of V_t of n tasks, as many as all of them have: [n, R, d_in]."""
        places = [self.places[task] for task in tasks]
        least = min(place.stop - place.start for place in places)
        return torch.stack([self.vh[place.start : place.start + least] for place in places])

    def changing(self, tasks: Sequence[int]) -> tuple[int, ...]:
        """Those of the tasks that do not leave the matrix alone."""
        return tuple(task for task in tasks if self.ranks[task])

    def output_rows(self, rows: slice) -> TaskBlocks:
        """The blocks of those rows of the matrix (a view)."""
        return TaskBlocks(self.u_t[:, rows], self.vh, self.ranks)

    def _with_neighbours(self, place: slice) -> tuple[Tensor, slice]:
        total = len(self.vh)
        columns = min(padded_column_count(place.stop - place.start), total)
        start = min(place.start, total - columns)
        own = slice(place.start - start, place.stop - start)
        return self.vh[start : start + columns].T, own


@dataclass(frozen=True, eq=False)
class BaseOnly:
    """The shared weight as it is."""

    bias: Tensor | None  # b_i [d_out]; None in a linear without bias

    nbytes = 0  # of what it holds beside the bias

    def output_rows(self, rows: slice) -> BaseOnly:
        """The change of those rows of the matrix (views)."""
        return BaseOnly(_rows(self.bias, rows))


@dataclass(frozen=True, eq=False)
class OneTask:
    """The blocks of one task."""

    task: int
    singular_values: Tensor  # s [R_t], in the dtype of the blocks
    bias: Tensor | None  # b_i [d_out]; None in a linear without bias

    @property
    def nbytes(self) -> int:
        """The memory of what it holds beside the bias."""
        return self.singular_values.nbytes

    def output_rows(self, rows: slice) -> OneTask:
        """The change of those rows of the matrix (views)."""
        return OneTask(self.task, self.singular_values, _rows(self.bias, rows))


@dataclass(frozen=True, eq=False)
class SeveralTasks:
    """The blocks of several tasks, with the two factors of the core between them."""

    tasks: tuple[int, ...]
    left: Tensor  # L [K, K] float32, K the summed ranks
    right: Tensor  # M [K, K] float32
    bias: Tensor | None  # b_i [d_out]; None in a linear without bias

    @property
    def nbytes(self) -> int:
        """The memory of what it holds beside the bias."""
        return self.left.nbytes + self.right.nbytes

    def output_rows(self, rows: slice) -> SeveralTasks:
        """The change of those rows of the matrix (views)."""
        return SeveralTasks(self.tasks, self.left, self.right, _rows(self.bias, rows))

    def folded(self, blocks: TaskBlocks) -> FoldedSides:
        """The same change with the core multiplied into the tasks' blocks."""
        right, left = folded_sides(blocks, self.tasks, self.left, self.right)
        return FoldedSides(right, left, self.bias)


@dataclass(frozen=True, eq=False)
class FoldedSides:
    """Two factors of the segment's own, in which blocks and core are one."""

    right: Tensor  # [K, d_in]
    left: Tensor  # [K, d_out]
    bias: Tensor | None  # b_i [d_out]; None in a linear without bias

    @property
    def nbytes(self) -> int:
        """The memory of what it holds beside the bias."""
        return self.right.nbytes + self.left.nbytes

    def output_rows(self, rows: slice) -> FoldedSides:
        """The change of those rows of the matrix (views)."""
        return FoldedSides(self.right, self.left[:, rows], _rows(self.bias, rows))


@dataclass(frozen=True, eq=False)
class MaterialisedWeight:
    """A materialised segment: its merged weight in place of the shared one."""

    weight: Tensor  # W_i [d_out, d_in]
    bias: Tensor | None  # b_i [d_out]; None in a linear without bias

    @property
    def nbytes(self) -> int:
        """The memory of what it holds beside the bias."""
        return self.weight.nbytes

    def output_rows(self, rows: slice) -> MaterialisedWeight:
        """The change of those rows of the matrix (views)."""
        return MaterialisedWeight(self.weight[rows], _rows(self.bias, rows))


Delta = BaseOnly | OneTask | SeveralTasks | FoldedSides | MaterialisedWeight


def folded_sides(
    blocks: TaskBlocks, tasks: Sequence[int], left_core: Tensor, right_core: Tensor
) -> tuple[Tensor, Tensor]:
    """`right = M V` [K, d_in] and `left = (U L)^T` [K, d_out], formed in float64; in the blocks' dtype."""
    places = [blocks.places[task] for task in tasks]
    u, vh = (torch.cat([rows[place] for place in places]).double() for rows in (blocks.u_t, blocks.vh))
    dtype = blocks.vh.dtype
    return (right_core.double() @ vh).to(dtype), (left_core.double().T @ u).to(dtype)


def resident(blocks: TaskBlocks | None) -> TaskBlocks:
    """The blocks of a linear in which a segment has tasks. Raises ValueError where there are none."""
    if blocks is None:
        raise ValueError("the segment's tasks have no blocks in this linear")
    return blocks


def _rows(bias: Tensor | None, rows: slice) -> Tensor | None:
    return None if bias is None else bias[rows]
