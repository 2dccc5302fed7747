"""Segmented low-rank linear in plain PyTorch: the definition, and what runs on a CPU.

For the rows `offsets[i]:offsets[i+1]`, by the type of their change (see `kernels.low_rank.deltas`), with the
blocks of its tasks side by side as U_i and V_i:

    y = x W^T + b_i                                      BaseOnly
    y = x W^T + b_i + ((x V_t^T) * s) U_t^T              OneTask
    y = x W^T + b_i + (((x V_i^T) M_i^T) L_i^T) U_i^T    SeveralTasks
    y = x W^T + b_i + (x right_i^T) left_i               FoldedSides
    y = x W_i^T + b_i                                    MaterialisedWeight

so that a segment's weight is `W + U_i C_i V_i` but for the first form: `C_i = L_i M_i`, `right_i = M_i V_i`
and `left_i^T = U_i L_i`. Then `y = act(y) + skip`, where an activation or a skip connection is given. What
several tasks add by a core is computed in float32 between x and y: where two of them are nearly equal, large
numbers cancel in it, but not in the folded sides, whose rows are orthogonal.
Small blocks of one task that has a bias of its own change bfloat16 by sums in float32, too, which costs
less there.
x [N, d_in], y and skip [N, d_out], W [d_out, d_in], all of one floating dtype, but that W may be in any
form of `kernels.weights`; blocks may be of another dtype, of fewer bits, or packed, and are widened just
before the product, one side at a time. Nothing is mutated.
Offsets start at 0, rise, and end at N; segments may be empty. A row's bits depend on that row and its
segment's weights alone (see `kernels.rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.low_rank.deltas import (
    BaseOnly,
    Delta,
    FoldedSides,
    MaterialisedWeight,
    OneTask,
    SeveralTasks,
    TaskBlock,
)
from mass_serve.kernels.packed_rows import numbers_of, with_more_rows
from mass_serve.kernels.rows import add_product_, padded_column_count, product, put_sum_
from mass_serve.kernels.weights import Weight, finished

# Numbers of V_t, of which a sample has few rows: what oneDNN does before it multiplies bfloat16 takes 12
# microseconds, and the product in float32 2 to 5 (one thread, 17 rows of 128, and 16 or fewer directions).
SMALL_BLOCK = 1 << 13


def segmented_linear(
    x: Tensor,
    weight: Weight,
    deltas: Sequence[Delta],
    row_offsets: Sequence[int],
    activation: Activation | None = None,
    skip: Tensor | None = None,
) -> Tensor:
    """The segmented linear of this module's docstring: y [N, d_out].

    Raises ValueError for offsets that do not fit.
    """
    if len(row_offsets) != len(deltas) + 1 or row_offsets[0] != 0 or row_offsets[-1] != x.shape[0]:
        raise ValueError(
            f"{len(deltas)} segments over {x.shape[0]} rows do not fit offsets {tuple(row_offsets)}"
        )
    y = x.new_empty(x.shape[0], weight.shape[0])
    sizes = [stop - start for start, stop in pairwise(row_offsets)]
    # The base product comes last: what it adds to, a segment's rows, then leave the cache only once.
    for delta, own_x, own_y in zip(deltas, x.split_with_sizes(sizes), y.split_with_sizes(sizes), strict=True):
        if own_x.shape[0]:
            _begin_(own_y, own_x, delta)
    if any(isinstance(delta, MaterialisedWeight) for delta in deltas):
        finish = [
            finished(y[run], x[run], weight if has_base else None, activation)
            for run, has_base in _runs(deltas, row_offsets)
        ]
        y = torch.cat([y[:0], *finish])
    else:
        y = finished(y, x, weight, activation)
    return y if skip is None else y.add_(skip)


def _runs(deltas: Sequence[Delta], row_offsets: Sequence[int]) -> Iterator[tuple[slice, bool]]:
    """Rows of neighbouring segments that share the base product, or have none: one call for each run."""
    segments = zip(deltas, pairwise(row_offsets), strict=True)
    for materialised, run in groupby(segments, lambda one: isinstance(one[0], MaterialisedWeight)):
        bounds = [bound for _, bounds in run for bound in bounds]
        if bounds[-1] > bounds[0]:
            yield slice(bounds[0], bounds[-1]), not materialised


def _begin_(y: Tensor, x: Tensor, delta: Delta) -> None:
    """Makes y [n, d_out] the segment's bias and what its product has beyond the shared weight's."""
    if isinstance(delta, OneTask) and delta.bias is not None:
        if y.dtype == torch.bfloat16 and delta.block.rank * x.shape[1] <= SMALL_BLOCK:
            wide = y.new_empty(y.shape, dtype=torch.float32)
            _put_one_task_(wide, x.float(), delta, delta.bias.float())
            y.copy_(wide)
        else:
            _put_one_task_(y, x, delta, delta.bias)
        return
    if delta.bias is None:
        y.zero_()
    else:
        y.copy_(delta.bias)
    _add_change_(y, x, delta)


def _put_one_task_(y: Tensor, x: Tensor, delta: OneTask, bias: Tensor) -> None:
    """`y = bias + ((x V_t^T) * s) U_t^T` [n, d_out], computed in the dtype of x."""
    put_sum_(y, bias, _scaled(x, delta), numbers_of(delta.block.u_t, x.dtype))


def _add_change_(y: Tensor, x: Tensor, delta: Delta) -> None:
    """Adds to y [n, d_out] what the segment's product has beyond the bias and the shared weight's."""
    match delta:
        case BaseOnly():
            pass
        case MaterialisedWeight(weight=weight):
            add_product_(y, x, weight.T)
        case FoldedSides(right=right, left=left):
            add_product_(y, product(x, right.T), left)
        case OneTask():
            add_product_(y, _scaled(x, delta), numbers_of(delta.block.u_t, y.dtype))
        case SeveralTasks():
            _add_several_(y, x, delta)


def _scaled(x: Tensor, delta: OneTask) -> Tensor:
    """`(x V_t^T) * s` [n, R]"""
    return _shrink(x, delta.block).mul_(delta.singular_values)


def _add_several_(y: Tensor, x: Tensor, delta: SeveralTasks) -> None:
    """`y += (((x V^T) M^T) L^T) U^T`, task by task, so that the shared blocks are read where they lie."""
    x = x.float()
    mixed = torch.cat([_shrink(x, block) for block in delta.blocks], dim=1)  # [n, K]
    mixed = product(product(mixed, delta.right.T), delta.left.T)
    added = y if y.dtype == torch.float32 else torch.zeros_like(y, dtype=torch.float32)
    parts = mixed.split([block.rank for block in delta.blocks], dim=1)  # type: ignore[no-untyped-call]
    for part, block in zip(parts, delta.blocks, strict=True):
        add_product_(added, part, numbers_of(block.u_t, torch.float32))
    if added is not y:
        y.add_(added)


def _shrink(x: Tensor, block: TaskBlock) -> Tensor:
    """`x V_t^T` [n, R] in the dtype of x."""
    # A product needs a certain number of columns for stable rows: they are filled up before V_t is widened.
    rank = block.rank
    if missing := padded_column_count(rank) - rank:
        return product(x, numbers_of(with_more_rows(block.vh, missing), x.dtype).T)[:, :rank]
    return product(x, numbers_of(block.vh, x.dtype).T)
