"""Segmented low-rank linear in plain PyTorch: the definition, and what runs on a CPU.

For the rows `offsets[i]:offsets[i+1]`, with the blocks of the tasks E_i side by side as U_i and V_i:

    y = x W^T + b_i + (((x V_i^T) M_i^T) L_i^T) U_i^T    low-rank segment
    y = x W^T + b_i + (x right_i^T) left_i               low-rank segment, its core folded into both sides
    y = x W_i^T + b_i                                    materialised segment
    y = x W^T + b_i                                      base-only segment

so that a segment's weight is `W + U_i C_i V_i` in the first three forms: `C_i = L_i M_i`, `right_i = M_i V_i`
and `left_i^T = U_i L_i`. Then `y = act(y) + residual`, where an activation or a residual is given. What
several tasks add by a core is computed in float32 between x and y: where two of them are nearly equal, large
numbers cancel in it, but not in the folded sides, whose rows are orthogonal.
x [N, d_in], y and residual [N, d_out], W [d_out, d_in], all of one floating dtype; nothing is mutated.
Offsets start at 0, rise, and end at N; segments may be empty. A row's bits depend on that row and its
segment's weights alone (see `kernels.rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from mass_serve.kernels.activations import Activation, activate_
from mass_serve.kernels.rows import add_product_, padded_column_count, product


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


@dataclass(frozen=True)
class SegmentDelta:
    """What one segment's experts change in one linear."""

    expert_set: tuple[int, ...]  # the K / R tasks of the segment
    # L and M [2, K, K] float32, or the diagonal of C [R] for one task; None where materialised
    core: Tensor | None
    bias: Tensor | None  # b_i [d_out]
    weight: Tensor | None = None  # W_i [d_out, d_in] where materialised
    # right_i [K, d_in] and left_i [K, d_out] where the core is folded
    sides: tuple[Tensor, Tensor] | None = None

    def output_rows(self, rows: slice) -> SegmentDelta:
        """The change of those rows of the matrix (views)."""
        bias = None if self.bias is None else self.bias[rows]
        weight = None if self.weight is None else self.weight[rows]
        sides = None if self.sides is None else (self.sides[0], self.sides[1][:, rows])
        return SegmentDelta(self.expert_set, self.core, bias, weight, sides)


def folded_sides(
    blocks: TaskBlocks, expert_set: Sequence[int], left_core: Tensor, right_core: Tensor
) -> tuple[Tensor, Tensor]:
    """`right = M V` [K, d_in] and `left = (U L)^T` [K, d_out], formed in float64; in the blocks' dtype."""
    tasks = list(expert_set)
    u, vh = blocks.u_t[tasks].flatten(0, 1).double(), blocks.vh[tasks].flatten(0, 1).double()
    dtype = blocks.vh.dtype
    return (right_core.double() @ vh).to(dtype), (left_core.double().T @ u).to(dtype)


def segmented_linear(
    x: Tensor,
    weight: Tensor,
    blocks: TaskBlocks | None,
    deltas: Sequence[SegmentDelta],
    row_offsets: Sequence[int],
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """The segmented linear of this module's docstring: y [N, d_out].

    `blocks` may be None where no segment has a core. Raises ValueError for offsets that do not fit.
    """
    if len(row_offsets) != len(deltas) + 1 or row_offsets[0] != 0 or row_offsets[-1] != x.shape[0]:
        raise ValueError(
            f"{len(deltas)} segments over {x.shape[0]} rows do not fit offsets {tuple(row_offsets)}"
        )
    y = x.new_empty(x.shape[0], weight.shape[0])
    sizes = [stop - start for start, stop in pairwise(row_offsets)]
    segments = list(zip(deltas, x.split(sizes), y.split(sizes), strict=True))  # type: ignore[no-untyped-call]
    # The base product comes last: what it adds to, a segment's rows, then leave the cache only once.
    for delta, own_x, own_y in segments:
        if delta.bias is None:
            own_y.zero_()
        else:
            own_y.copy_(delta.bias)
        if delta.weight is not None:
            add_product_(own_y, own_x, delta.weight.T)
        elif delta.sides is not None:
            right, left = delta.sides
            add_product_(own_y, product(own_x, right.T), left)
        elif delta.core is not None and blocks is not None and len(own_x):
            _add_expert_delta_(own_y, own_x, blocks, delta.expert_set, delta.core)
    for start, stop in _base_runs(deltas, row_offsets):
        add_product_(y[start:stop], x[start:stop], weight.T)
    if activation is not None:
        y = activate_(y, activation)
    return y if residual is None else y.add_(residual)


def _base_runs(deltas: Sequence[SegmentDelta], row_offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Row ranges of neighbouring segments that share the base product: one call for each run."""
    start = row_offsets[0]
    for delta, segment_start, stop in zip(deltas, row_offsets, row_offsets[1:], strict=False):
        if delta.weight is not None:
            if segment_start > start:
                yield start, segment_start
            start = stop
    if row_offsets[-1] > start:
        yield start, row_offsets[-1]


def _add_expert_delta_(
    y: Tensor, x: Tensor, blocks: TaskBlocks, expert_set: tuple[int, ...], core: Tensor
) -> None:
    """`y += ((x V^T) C^T) U^T`, task by task, so that the shared blocks are read where they lie."""
    if core.ndim == 1:
        shrunk = _shrink(x, blocks, expert_set[0])
        add_product_(y, shrunk.mul_(core), blocks.expand_operands[expert_set[0]])
        return
    x = x.float()
    left, right = core
    mixed = torch.cat([_shrink(x, blocks, task) for task in expert_set], dim=1)  # [n, K]
    mixed = product(product(mixed, right.T), left.T)
    added = y if y.dtype == torch.float32 else torch.zeros_like(y, dtype=torch.float32)
    for part, task in zip(mixed.chunk(len(expert_set), dim=1), expert_set, strict=True):
        add_product_(added, part, blocks.expand_operands[task].float())
    if added is not y:
        y.add_(added)


def _shrink(x: Tensor, blocks: TaskBlocks, task: int) -> Tensor:
    """`x V_t^T` [n, R] in the dtype of x."""
    operand, columns = blocks.shrink_operands[task]
    return product(x, operand.to(x.dtype))[:, columns]
