"""What a segment's experts change in one linear: one type for each form that a change has.

    W_i = W                            `BaseOnly`
    W_i = W + U_t diag(s) V_t          `OneTask`
    W_i = W + U_i L M V_i              `SeveralTasks`
    W_i = W + left^T right             `FoldedSides`
    the same of a small linear         `SmallSides`
    W_i                                `MaterialisedWeight`

U_t and V_t are a task's block, U_i and V_i those of several tasks side by side. L, M and the folded
sides are those of `merging.methods.tsv_m` and of `folded_sides` here. Each form also has the segment's bias.

Blocks may be packed (`kernels.packed_rows`). A product then multiplies by whole numbers, and what is between
the two sides, s or L and M, is divided by how much longer those are than the directions: once for a segment's
weights (`OneTask.of`, `SeveralTasks.of`), and never in a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.kernels.packed_rows import PackedRows, Rows, lengths_of, numbers_of
from mass_serve.kernels.rows import padded_column_count

# Numbers of a weight: encoders 128 wide, and their MLPs, are below it, those 384 wide above.
SMALL_WEIGHT = 1 << 17


@dataclass(frozen=True, eq=False)
class TaskBlock:
    """The singular block of one task in one matrix: in memory once, shared by all expert sets with the task.

    It may have fewer bits than what it is multiplied with, and is widened in the product.
    """

    u_t: Rows  # [R, d_out]: U_t^T
    vh: Rows  # [R, d_in]: V_t

    @property
    def rank(self) -> int:
        """R, at least 1: a task has no block in a matrix that it left alone."""
        return self.vh.shape[0]

    @property
    def nbytes(self) -> int:
        """The memory of both sides."""
        return self.u_t.nbytes + self.vh.nbytes

    def output_rows(self, rows: slice) -> TaskBlock:
        """The block of those rows of the matrix (a view)."""
        u_t = self.u_t.of_columns(rows) if isinstance(self.u_t, PackedRows) else self.u_t[:, rows]
        return TaskBlock(u_t, self.vh)

    @property
    def is_packed(self) -> bool:
        """Whether its sides are whole numbers of few bits."""
        return isinstance(self.vh, PackedRows)


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
    """The block of one task."""

    block: TaskBlock
    # s [R] in the dtype of the computation; of a packed block in float32, over the lengths of its numbers
    singular_values: Tensor
    bias: Tensor | None  # b_i [d_out]; None in a linear without bias

    @classmethod
    def of(cls, block: TaskBlock, s: Tensor, bias: Tensor | None, dtype: torch.dtype) -> OneTask:
        """The change by a block and its singular values [R] float32, computed with in `dtype`."""
        if block.is_packed:
            return cls(block, s / (lengths_of(block.u_t) * lengths_of(block.vh)), bias)
        return cls(block, s.to(dtype), bias)

    @property
    def nbytes(self) -> int:
        """The memory of what it holds beside the bias and the shared block."""
        return self.singular_values.nbytes

    def output_rows(self, rows: slice) -> OneTask:
        """The change of those rows of the matrix (views)."""
        return OneTask(self.block.output_rows(rows), self.singular_values, _rows(self.bias, rows))


@dataclass(frozen=True, eq=False)
class SeveralTasks:
    """The blocks of several tasks, with the two factors of the core between them."""

    blocks: tuple[TaskBlock, ...]
    left: Tensor  # L [K, K] float32, K the summed ranks; its rows over the lengths of packed blocks' numbers
    right: Tensor  # M [K, K] float32; its columns the same
    bias: Tensor | None  # b_i [d_out]; None in a linear without bias

    @classmethod
    def of(
        cls, blocks: Sequence[TaskBlock], left: Tensor, right: Tensor, bias: Tensor | None
    ) -> SeveralTasks:
        """The change by blocks and the factors L and M of the core of their directions, of any dtype."""
        if any(block.is_packed for block in blocks):
            left = left / torch.cat([lengths_of(block.u_t) for block in blocks])[:, None]
            right = right / torch.cat([lengths_of(block.vh) for block in blocks])
        return cls(tuple(blocks), left, right, bias)

    @property
    def nbytes(self) -> int:
        """The memory of what it holds beside the bias and the shared blocks."""
        return self.left.nbytes + self.right.nbytes

    def output_rows(self, rows: slice) -> SeveralTasks:
        """The change of those rows of the matrix (views)."""
        blocks = tuple(block.output_rows(rows) for block in self.blocks)
        return SeveralTasks(blocks, self.left, self.right, _rows(self.bias, rows))

    def folded(self, dtype: torch.dtype) -> FoldedSides:
        """The same change with the core multiplied into the tasks' blocks, for computing in `dtype`."""
        right, left = folded_sides(self.blocks, self.left, self.right, dtype)
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
class SmallSides:
    """Two factors of the segment's own in float32, of which the last row is the bias:

        W_i x + b_i = W x + left^T [right_t^T x, 1]

    In a small linear beginning an operation takes as long as it computes. Blocks that lie there as they are
    multiplied by leave two for a segment, where shared ones take four to eleven.
    """

    right_t: Tensor  # [d_in, K]: K is a multiple of what a product takes without a copy
    left: Tensor  # [K + 1, d_out]; the last row is b_i, or zeros in a linear without bias

    @classmethod
    def of(cls, change: OneTask | SeveralTasks) -> SmallSides:
        """The same change, as rounded as its blocks are."""
        if isinstance(change, OneTask):
            s = change.singular_values.float().unsqueeze(1)
            right, left = (
                numbers_of(change.block.vh, torch.float32),
                numbers_of(change.block.u_t, s.dtype) * s,
            )
        else:
            right, left = folded_sides(change.blocks, change.left, change.right, torch.float32)
        missing = padded_column_count(len(right)) - len(right)
        bias = left.new_zeros(left.shape[1]) if change.bias is None else change.bias.float()
        below = torch.cat([left.new_zeros(missing, left.shape[1]), bias.unsqueeze(0)])
        return cls(F.pad(right.T, (0, missing)).contiguous(), torch.cat([left, below]))

    @property
    def bias(self) -> Tensor:
        """b_i [d_out] float32 (a view)"""
        return self.left[-1]

    @property
    def rank(self) -> int:
        """K"""
        return self.right_t.shape[1]

    @staticmethod
    def nbytes_of(rank: int, weight_shape: Sequence[int]) -> int:
        """The memory of sides of so many summed ranks of a linear [d_out, d_in]."""
        d_out, d_in = weight_shape
        rank = padded_column_count(rank)
        return (rank * d_in + (rank + 1) * d_out) * torch.float32.itemsize

    @property
    def nbytes(self) -> int:
        """The memory of both sides, the bias among them."""
        return self.right_t.nbytes + self.left.nbytes

    def output_rows(self, rows: slice) -> SmallSides:
        """The change of those rows of the matrix (views)."""
        return SmallSides(self.right_t, self.left[:, rows])


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


Delta = BaseOnly | OneTask | SeveralTasks | FoldedSides | SmallSides | MaterialisedWeight


def is_small(weight_shape: Sequence[int]) -> bool:
    """Tells whether a linear [d_out, d_in] is one that has `SmallSides` on a CPU."""
    return math.prod(weight_shape) <= SMALL_WEIGHT


def folded_sides(
    blocks: Sequence[TaskBlock], left_core: Tensor, right_core: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`right = M V` [K, d_in] and `left = (U L)^T` [K, d_out] in `dtype`, formed in float64."""
    u_t = torch.cat([numbers_of(one.u_t, torch.float64) for one in blocks])
    vh = torch.cat([numbers_of(one.vh, torch.float64) for one in blocks])
    return (right_core.double() @ vh).to(dtype), (left_core.double().T @ u_t).to(dtype)


def _rows(bias: Tensor | None, rows: slice) -> Tensor | None:
    return None if bias is None else bias[rows]
