"""Segmented low-rank linear in plain PyTorch: the definition, and what runs on a CPU.

For the rows `offsets[i]:offsets[i+1]`, by the type of their change (see `kernels.low_rank.deltas`), with the
blocks of its tasks side by side as U_i and V_i:

    y = x W^T + b_i                                      BaseOnly
    y = x W^T + b_i + ((x V_t^T) * s) U_t^T              OneTask
    y = x W^T + b_i + (((x V_i^T) M_i^T) L_i^T) U_i^T    SeveralTasks
    y = x W^T + b_i + (x right_i^T) left_i               FoldedSides
    y = x W^T + [x right_i^T, 1] left_i                  SmallSides
    y = x W_i^T + b_i                                    MaterialisedWeight

so that a segment's weight is `W + U_i C_i V_i` but for the first form: `C_i = L_i M_i`, `right_i = M_i V_i`
and `left_i^T = U_i L_i`. Then `y = act(y) + skip`, where an activation or a skip connection is given. What
several tasks add by a core is computed in float32 between x and y: where two of them are nearly equal, large
numbers cancel in it, but not in the folded sides, whose rows are orthogonal.
What small sides add is computed in float32, too: oneDNN takes longer to begin a product of bfloat16 than such
a product takes.
x [N, d_in], y and skip [N, d_out], W [d_out, d_in], all of one floating dtype, but that W may be in any
form of `kernels.weights`; blocks may be of another dtype, of fewer bits, or packed, and are widened just
before the product, one side at a time. Nothing is mutated.
Offsets start at 0, rise, and end at N; segments may be empty. A row's bits depend on that row and its
segment's weights alone (see `kernels.rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise

import torch
from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.activations import activate_
from mass_serve.kernels.low_rank.deltas import (
    BaseOnly,
    Delta,
    FoldedSides,
    MaterialisedWeight,
    OneTask,
    SeveralTasks,
    SmallSides,
    TaskBlock,
    is_small,
)
from mass_serve.kernels.packed_rows import numbers_of, with_more_rows
from mass_serve.kernels.quantised import QuantisedWeight
from mass_serve.kernels.reordered import ReorderedWeight
from mass_serve.kernels.rows import (
    add_product_,
    padded_column_count,
    padded_row_count,
    product,
    put_product_,
    put_sum_,
)
from mass_serve.kernels.weights import Weight, base_product, finished


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
    sizes = [stop - start for start, stop in pairwise(row_offsets)]
    if x.dtype == torch.float32 and not isinstance(weight, QuantisedWeight) and is_small(weight.shape):
        y = _base_first(x, weight, deltas, row_offsets, sizes)
        y = y if activation is None else activate_(y, activation)
    else:
        y = _base_last(x, weight, deltas, row_offsets, sizes, activation)
    return y if skip is None else y.add_(skip)


def _base_first(
    x: Tensor,
    weight: Tensor | ReorderedWeight,
    deltas: Sequence[Delta],
    row_offsets: Sequence[int],
    sizes: Sequence[int],
) -> Tensor:
    """The linear without activation in float32, which rounds nothing between one sum and the next.

    What is added to a small linear's product is still in the cache, which spares the copies of the other way.
    """
    if any(isinstance(delta, MaterialisedWeight) for delta in deltas):
        y = x.new_empty(x.shape[0], weight.shape[0])
        for run, has_base in _runs(deltas, row_offsets):
            if has_base:
                y[run] = base_product(x[run], weight)
    else:
        y = base_product(x, weight)
    return _with_own(y, x, deltas, tuple(sizes))


def _base_last(
    x: Tensor,
    weight: Weight,
    deltas: Sequence[Delta],
    row_offsets: Sequence[int],
    sizes: Sequence[int],
    activation: Activation | None,
) -> Tensor:
    """The linear and its activation, the base product last, which adds to the rest and rounds once."""
    if any(isinstance(delta, SmallSides) for delta in deltas):
        wide = x.new_zeros(x.shape[0], weight.shape[0], dtype=torch.float32)
        y = _with_own(wide, x.float(), deltas, tuple(sizes)).to(x.dtype)
    else:
        y = x.new_empty(x.shape[0], weight.shape[0])
        for delta, own_x, own_y in zip(
            deltas, x.split_with_sizes(sizes), y.split_with_sizes(sizes), strict=True
        ):
            if own_x.shape[0]:
                _begin_(own_y, own_x, delta)
    if any(isinstance(delta, MaterialisedWeight) for delta in deltas):
        finish = [
            finished(y[run], x[run], weight if has_base else None, activation)
            for run, has_base in _runs(deltas, row_offsets)
        ]
        return torch.cat([y[:0], *finish])
    return finished(y, x, weight, activation)


def _runs(deltas: Sequence[Delta], row_offsets: Sequence[int]) -> Iterator[tuple[slice, bool]]:
    """Rows of neighbouring segments that share the base product, or have none: one call for each run."""
    segments = zip(deltas, pairwise(row_offsets), strict=True)
    for materialised, run in groupby(segments, lambda one: isinstance(one[0], MaterialisedWeight)):
        bounds = [bound for _, bounds in run for bound in bounds]
        if bounds[-1] > bounds[0]:
            yield slice(bounds[0], bounds[-1]), not materialised


def _with_own(y: Tensor, x: Tensor, deltas: Sequence[Delta], sizes: tuple[int, ...]) -> Tensor:
    """The base product y [N, d_out] float32 with what each segment's product and bias are beside it.

    Where a segment has no base product, y is undefined. It is overwritten.
    """
    padded_sizes = tuple(map(padded_row_count, sizes))
    if padded_sizes == sizes:
        _add_own_(y, x, deltas, sizes)
        return y
    # Once for all segments: each would be padded by itself, and in both products.
    padded, back = _padded_rows(sizes, padded_sizes)
    y = y[padded]
    _add_own_(y, x[padded], deltas, padded_sizes)
    return y[back]


@lru_cache(maxsize=32)  # each is as long as its batch, and linear after linear asks for the same one
def _padded_rows(sizes: tuple[int, ...], padded_sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Which rows stand in segments that are filled up with any rows, and where each row is there."""
    padded, back = list[int](), list[int]()
    start = 0
    for size, padded_size in zip(sizes, padded_sizes, strict=True):
        back += range(len(padded), len(padded) + size)
        padded += range(start, start + size)
        padded += [start] * (padded_size - size)
        start += size
    with torch.inference_mode(mode=False):  # they outlive it
        return torch.tensor(padded), torch.tensor(back)


def _add_own_(y: Tensor, x: Tensor, deltas: Sequence[Delta], sizes: Sequence[int]) -> None:
    """Adds to y [N, d_out] float32 what each segment's product and bias are beside the base product.

    Where a segment has no base product, y becomes its product and bias. Segments have as many rows as
    products are computed with.
    """
    rank = max((delta.rank for delta in deltas if isinstance(delta, SmallSides)), default=0)
    room = x.new_ones(x.shape[0], rank + 1)
    rows = (rows.split_with_sizes(sizes) for rows in (y, x, room, room[:, :rank]))
    for delta, own_y, own_x, along, product_of_x in zip(deltas, *rows, strict=True):
        if isinstance(delta, SmallSides):
            unused = rank - delta.rank
            put_product_(product_of_x[:, unused:] if unused else product_of_x, own_x, delta.right_t)
            add_product_(own_y, along[:, unused:] if unused else along, delta.left)
        elif own_x.shape[0]:
            _add_other_(own_y, own_x, delta)


def _add_other_(y: Tensor, x: Tensor, delta: Delta) -> None:
    """Adds the same to y [n, d_out] of one segment without small sides, or makes y it."""
    if isinstance(delta, MaterialisedWeight):
        own = y.to(delta.weight.dtype)
        _begin_(own, x.to(own.dtype), delta)
        y.copy_(own)
        return
    if delta.bias is not None:
        y.add_(delta.bias)
    _add_change_(y, x, delta)


def _begin_(y: Tensor, x: Tensor, delta: Delta) -> None:
    """Makes y [n, d_out] the segment's bias and what its product has beyond the shared weight's."""
    if isinstance(delta, OneTask) and delta.bias is not None:
        put_sum_(y, delta.bias, _scaled(x, delta), numbers_of(delta.block.u_t, x.dtype))
        return
    if delta.bias is None:
        y.zero_()
    else:
        y.copy_(delta.bias)
    _add_change_(y, x, delta)


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
        case SmallSides():  # whose bias is no tensor of its own
            raise TypeError("small sides are added in float32, with their bias")


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
