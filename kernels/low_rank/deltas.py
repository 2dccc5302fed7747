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

from torch import Tensor

from mass_serve.kernels.rows import padded_column_count


@dataclass(frozen=True)
class TaskBlocks:
    """The singular blocks of one matrix, of all tasks: resident once, shared by every expert set."""

    u: Tensor  # [T, d_out, R]
    vh: Tensor  # [T, R, d_in]

    @cached_property
    def expand_operands(self) -> list[Tensor]:
        """U_t^T [R, d_out] of each task (views)."""
        return [u.T for u in self.u]

    @cached_property
    def u_t(self) -> Tensor:
        """U_t^T [T, R, d_out] in rows of d_out numbers: a view where u lies so in memory, else a copy."""
        return self.u.transpose(1, 2).contiguous()

    @cached_property
    def shrink_operands(self) -> list[tuple[Tensor, slice]]:
        """For each task a matrix [d_in, n] (a view), and which of its columns are V_t^T.

        A product needs a certain number of columns for stable rows (see `kernels.rows`). V_t's neighbours
        in memory are rows of other tasks: taking a few of them along fills the columns up without a copy.
        """
        tasks, rank, _ = self.vh.shape
        rows = self.vh.flatten(0, 1)
        columns = min(padded_column_count(rank), tasks * rank)
        starts = [min(task * rank, tasks * rank - columns) for task in range(tasks)]
        firsts = [task * rank - start for task, start in enumerate(starts)]
        return [
            (rows[start : start + columns].T, slice(first, first + rank))
            for start, first in zip(starts, firsts, strict=True)
        ]

    def output_rows(self, rows: slice) -> TaskBlocks:
        """The blocks of those rows of the matrix (a view)."""
        return TaskBlocks(self.u[:, rows], self.vh)


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
    singular_values: Tensor  # s [R], in the dtype of the blocks
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
    places = list(tasks)
    u, vh = blocks.u_t[places].flatten(0, 1).double(), blocks.vh[places].flatten(0, 1).double()
    dtype = blocks.vh.dtype
    return (right_core.double() @ vh).to(dtype), (left_core.double().T @ u).to(dtype)


def resident(blocks: TaskBlocks | None) -> TaskBlocks:
    """The blocks of a linear in which a segment has tasks. Raises ValueError where there are none."""
    if blocks is None:
        raise ValueError("the segment's tasks have no blocks in this linear")
    return blocks


def _rows(bias: Tensor | None, rows: slice) -> Tensor | None:
    return None if bias is None else bias[rows]
