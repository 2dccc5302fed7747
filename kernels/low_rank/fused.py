"""Segmented low-rank linear in two Triton kernels: one for `x right^T`, one for everything else.

For the rows `offsets[i]:offsets[i+1]`:

    h = scale_i * (x right_i^T)                               shrink
    y = act(x W_i^T + h left_i + b_i) + skip                  expand

where one task's `right_i`, `left_i^T` and `scale_i` are its resident block V, U and singular values; a set of
several tasks has its core folded into both sides (`right_i = M_i V_i`, `left_i^T = U_i L_i`, no scale); a
materialised segment has its own W_i and rank 0, and a base-only one the shared W and rank 0. A packed block
stays packed, and is unpacked in registers on its way into a product, its scale in float32. Folding into
both sides costs memory for each set, K (d_in + d_out) numbers a linear, and saves two products of K^2 a row
and their launches; the folded rows are orthogonal, so that they may be rounded to 16 bits where the blocks of
nearly equal tasks under a core could not. Where x are the rows behind a LayerNorm, shrink normalises them as
it reads them, and writes them for expand (`planned_norm`).

x [N, d_in], y and skip [N, d_out], of one dtype: bfloat16, float16, or float32 (see
`kernels.gpu_architecture.product_precision`). Only y and the scratch h are written, by plain stores. The
first offset is 0, the last at most N; the rows beyond it, the tail, come out as zeros; segments may be empty.
A row's bits depend on that row and its segment's weights alone: there are no atomics, the tiles follow from
the weight's shape, and every element is summed in one fixed order. Weights must be finite: a row's neighbours
in a tile multiply its experts' weights by 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
import triton
from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.gpu_architecture import architecture_of, product_precision
from mass_serve.kernels.low_rank.deltas import (
    Delta,
    FoldedSides,
    MaterialisedWeight,
    OneTask,
    SeveralTasks,
    TaskBlock,
)
from mass_serve.kernels.low_rank.places import LinearPlace, linear_fields
from mass_serve.kernels.low_rank.triton_kernels import expand_kernel
from mass_serve.kernels.low_rank.triton_shrink import shrink_kernel
from mass_serve.kernels.packed_rows import bytes_of_row
from mass_serve.kernels.records import Fields, LinearField, address, alignment, record
from mass_serve.kernels.segment_plan import SegmentPlan, Tiling
from mass_serve.kernels.tile_shapes import TileShape, compiler_options, tile_shape

# Tiles of rows that share the columns of W in the cache.
GROUP = 8
# Heads have few rows, and the same numbers of them again and again: their plans are kept, a few KB each.
KEPT_PLANS = 1024
KEPT_ROWS = 256
INTERPRETED = not isinstance(expand_kernel, triton.JITFunction)


def folded(delta: Delta, dtype: torch.dtype) -> Delta:
    """The same change, its core folded where it has one, in memory that is contiguous."""
    match delta:
        case SeveralTasks():
            return delta.folded(dtype)
        case FoldedSides():
            return replace(delta, left=delta.left.contiguous())
        case OneTask(block=block):
            return replace(delta, block=TaskBlock(block.u_t.contiguous(), block.vh))
        case _:
            return delta


def segmented_linear(
    x: Tensor,
    weight: Tensor,
    deltas: Sequence[Delta],
    row_offsets: Sequence[int],
    activation: Activation | None = None,
    skip: Tensor | None = None,
) -> Tensor:
    """The same as `kernels.low_rank.reference.segmented_linear`, with a plan made for this one call.

    An encoder makes one plan for all its linears and calls `planned_linear`.
    """
    if len(row_offsets) != len(deltas) + 1 or row_offsets[0] != 0 or row_offsets[-1] != x.shape[0]:
        raise ValueError(
            f"{len(deltas)} segments over {x.shape[0]} rows do not fit offsets {tuple(row_offsets)}"
        )
    # Sides of some output rows are no memory that a kernel could read: they are copied. Memory that is freed
    # when this returns is reused in the order of the launches.
    rank = max(map(_largest_rank, deltas))
    weight, deltas = weight.contiguous(), [folded(delta, weight.dtype) for delta in deltas]
    fields = [linear_fields(delta, weight) for delta in deltas]
    tile = tile_shape("expand", x.dtype, weight.shape[0], weight.shape[1], x.device)
    tilings = [Tiling(1, tile.block_m, per_segment=False)]
    plan = SegmentPlan(x.shape[0], len(deltas), len(LinearField), x.device, tilings=tilings)
    own_weights = [isinstance(delta, MaterialisedWeight) for delta in deltas]
    plan.update(row_offsets, [record(len(LinearField), {0: own}) for own in fields], own_weights)
    max_rank = max(own.get(LinearField.RANK, 0) for own in fields)
    packed = any(own.get(LinearField.BITS) for own in fields)
    place = LinearPlace(
        0, weight.shape[0], weight.shape[1], rank or max_rank, max_rank, shared_weight=True, packed=packed
    )
    return planned_linear(x, plan, place, tokens=1, activation=activation, skip=skip)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation | None = None,
    skip: Tensor | None = None,
) -> Tensor:
    """`y = act(x W^T + b) + skip` [N, d_out]: `segmented_linear` of one base-only segment.

    What its plan says follows from N and two addresses, so one that is kept is never out of date.
    """
    weight = weight.contiguous()
    d_out, d_in = weight.shape
    tile = tile_shape("expand", x.dtype, d_out, d_in, x.device)
    make_plan = _kept_plan if len(x) <= KEPT_ROWS else _plan
    plan = make_plan(len(x), address(weight), address(bias), tile.block_m, x.device)
    place = LinearPlace(0, d_out, d_in, 0, 0, shared_weight=True)
    return planned_linear(x, plan, place, tokens=1, activation=activation, skip=skip)


def _plan(rows: int, weight: int, bias: int, block_m: int, device: torch.device) -> SegmentPlan:
    """The plan of rows by one weight; `weight` and `bias` are addresses."""
    plan = SegmentPlan(rows, 1, len(LinearField), device, tilings=[Tiling(1, block_m, per_segment=False)])
    fields: Fields = {LinearField.WEIGHT: weight, LinearField.BIAS: bias}
    plan.update([0, rows], [record(len(LinearField), {0: fields})], [False])
    return plan


_kept_plan = lru_cache(KEPT_PLANS)(_plan)


def _largest_rank(delta: Delta) -> int:
    """The largest rank of a task's block in a change; 0 where there is none."""
    match delta:
        case OneTask(block=block):
            return block.rank
        case SeveralTasks(blocks=blocks):
            return max(block.rank for block in blocks)
        case _:
            return 0


def planned_linear(
    x: Tensor,
    plan: SegmentPlan,
    place: LinearPlace,
    *,
    tokens: int,
    output_rows: slice = slice(None),
    activation: Activation | None = None,
    skip: Tensor | None = None,
    shrunk: Tensor | None = None,
) -> Tensor:
    """The segmented linear of this module's docstring for `tokens` rows of each of the plan's samples.

    `output_rows` are the rows of W to multiply by, and `shrunk` is h where there is one already. Everything
    is launched, nothing is waited for.
    """
    first, last, _ = output_rows.indices(place.d_out)
    y = x.new_empty(x.shape[0], last - first)
    tile = tile_shape("expand", x.dtype, place.d_out, place.d_in, x.device)
    h = x
    if place.max_rank:
        h = _shrink(x, plan, place, tokens) if shrunk is None else shrunk
    tiles = plan.tiles(Tiling(tokens, tile.block_m, per_segment=not place.shared_weight))
    blocks = triton.cdiv(y.shape[1], tile.block_n)
    expand_kernel[(len(tiles) * blocks,)](
        x,
        h,
        y,
        y if skip is None else skip,
        tiles,
        plan.offsets,
        plan.table,
        len(tiles),
        plan.table.shape[1],
        place.field,
        tokens,
        h.shape[1],
        place.d_in,
        place.d_out,
        bytes_of_row(place.d_out, 4),
        y.shape[1],
        first,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_R=tile.block_r,
        GROUP=GROUP,
        ALIGN_OUT=alignment(x.element_size(), place.d_out, first),
        LOW_RANK=place.max_rank > 0,
        PACKED=place.packed,
        RUN=alignment(1, place.d_out, bytes_of_row(place.d_out, 4), first),
        HAS_SKIP=skip is not None,
        ACTIVATION=activation,
        **_common(x, tile, place),
    )
    return y


def planned_norm(
    x: Tensor, plan: SegmentPlan, place: LinearPlace, norm: int, *, tokens: int, eps: float
) -> tuple[Tensor, Tensor]:
    """The LayerNorm of the rows that enter a linear, and the h of that linear, in one launch.

    `norm` is where the LayerNorm's fields begin; the place has a rank. The first is what
    `kernels.layer_norm.fused` gives, summed in another order.
    """
    x = x.contiguous()
    y = x.new_empty(x.shape)
    return y, _shrink(x, plan, place, tokens, y=y, norm=norm, eps=eps)


def _shrink(
    x: Tensor,
    plan: SegmentPlan,
    place: LinearPlace,
    tokens: int,
    *,
    y: Tensor | None = None,
    norm: int = 0,
    eps: float = 0.0,
) -> Tensor:
    """h [N, max_rank, rounded up]; what lies beyond a segment's rank and its block of columns is not set.

    With a y, that is where the rows are written as they come out of the LayerNorm before the linear.
    """
    tile = tile_shape("shrink", x.dtype, place.rank, place.d_in, x.device)
    tiles = plan.tiles(Tiling(tokens, tile.block_m, per_segment=True))
    blocks = triton.cdiv(place.max_rank, tile.block_n)
    h = x.new_empty(x.shape[0], blocks * tile.block_n)
    shrink_kernel[(len(tiles), blocks)](
        x,
        h if y is None else y,
        h,
        tiles,
        plan.table,
        plan.table.shape[1],
        place.field,
        norm,
        h.shape[1],
        place.d_in,
        bytes_of_row(place.d_in, 4),
        eps,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        NORM=y is not None,
        PACKED=place.packed,
        RUN=alignment(1, place.d_in, bytes_of_row(place.d_in, 4)),
        **_common(x, tile, place),
    )
    return h


def _common(x: Tensor, tile: TileShape, place: LinearPlace) -> dict[str, object]:
    architecture = architecture_of(x.device)
    return {
        "BLOCK_K": tile.block_k,
        "EVEN_K": place.d_in % tile.block_k == 0,
        "ALIGN_IN": alignment(x.element_size(), place.d_in),
        # The interpreter's bfloat16 arithmetic is wrong; its casts are right.
        "UPCAST": INTERPRETED,
        "PRECISION": product_precision(x.dtype, architecture),
        **compiler_options(tile, architecture),
    }
