"""Segmented low-rank linear in plain PyTorch: the definition, and what runs on a CPU.

For the rows `offsets[i]:offsets[i+1]`, with the blocks of the tasks E_i side by side as U_i and V_i:

    y = x W^T + b_i + ((x V_i^T) C_i^T) U_i^T        low-rank segment
    y = x W_i^T + b_i                                materialised segment

so that a segment's weight is `W + U_i C_i V_i` in both forms. x [N, d_in], y [N, d_out], W [d_out, d_in],
all of one floating dtype; nothing is mutated. Offsets start at 0, rise, and end at N; segments may be
empty. A row's bits depend on that row and its segment's weights alone (see `kernels.rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.rows import add_product_, product


@dataclass(frozen=True)
class TaskBlocks:
    """The singular blocks of one matrix, of all tasks: resident once, shared by every expert set."""

    u: Tensor  # [T, d_out, R]
    vh: Tensor  # [T, R, d_in]

    def output_rows(self, rows: slice) -> TaskBlocks:
        """The blocks of those rows of the matrix (a view)."""
        return TaskBlocks(self.u[:, rows], self.vh)


@dataclass(frozen=True)
class SegmentDelta:
    """What one segment's experts change in one linear."""

    expert_set: tuple[int, ...]  # the K / R tasks of the segment
    core: Tensor | None  # C [K, K], or its diagonal [R] for one task; None where materialised
    bias: Tensor | None  # b_i [d_out]
    weight: Tensor | None = None  # W_i [d_out, d_in] where materialised

    def output_rows(self, rows: slice) -> SegmentDelta:
        """The change of those rows of the matrix (views)."""
        bias = None if self.bias is None else self.bias[rows]
        weight = None if self.weight is None else self.weight[rows]
        return SegmentDelta(self.expert_set, self.core, bias, weight)


def segmented_linear(
    x: Tensor,
    weight: Tensor,
    blocks: TaskBlocks | None,
    deltas: Sequence[SegmentDelta],
    row_offsets: Sequence[int],
) -> Tensor:
    """The segmented linear of this module's docstring: y [N, d_out].

    `blocks` may be None where every segment is materialised. Raises ValueError for offsets that do not fit.
    """
    if len(row_offsets) != len(deltas) + 1 or row_offsets[0] != 0 or row_offsets[-1] != x.shape[0]:
        raise ValueError(
            f"{len(deltas)} segments over {x.shape[0]} rows do not fit offsets {tuple(row_offsets)}"
        )
    y = x.new_empty(x.shape[0], weight.shape[0])
    for delta, start, stop in zip(deltas, row_offsets, row_offsets[1:], strict=False):
        _fill_with_bias(y[start:stop], delta.bias)
        if delta.weight is not None:
            add_product_(y[start:stop], x[start:stop], delta.weight.T)
    for start, stop in _low_rank_runs(deltas, row_offsets):
        add_product_(y[start:stop], x[start:stop], weight.T)
    for delta, start, stop in zip(deltas, row_offsets, row_offsets[1:], strict=False):
        if blocks is not None and delta.core is not None and stop > start:
            _add_expert_delta_(y[start:stop], x[start:stop], blocks, delta.expert_set, delta.core)
    return y


def _fill_with_bias(y: Tensor, bias: Tensor | None) -> None:
    if bias is None:
        y.zero_()
    else:
        y.copy_(bias)


def _low_rank_runs(deltas: Sequence[SegmentDelta], row_offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Row ranges of neighbouring low-rank segments: they share the base product, one call for each run."""
    start = row_offsets[0]
    for delta, segment_start, stop in zip(deltas, row_offsets, row_offsets[1:], strict=False):
        if delta.core is None:
            if segment_start > start:
                yield start, segment_start
            start = stop
    if row_offsets[-1] > start:
        yield start, row_offsets[-1]


def _add_expert_delta_(
    y: Tensor, x: Tensor, blocks: TaskBlocks, expert_set: tuple[int, ...], core: Tensor
) -> None:
    """`y += ((x V^T) C^T) U^T`, task by task, so that the shared blocks are read where they lie."""
    shrunk = [product(x, blocks.vh[task].T) for task in expert_set]  # each [n, R]
    if core.ndim == 1:
        add_product_(y, shrunk[0].mul_(core), blocks.u[expert_set[0]].T)
        return
    mixed = product(torch.cat(shrunk, dim=1), core.T)  # [n, K]
    for part, task in zip(mixed.chunk(len(shrunk), dim=1), expert_set, strict=True):
        add_product_(y, part, blocks.u[task].T)
