"""Rows of segmented tables in two Triton kernels: words with low-rank changes, and rows that are added.

For the rows `offsets[i]:offsets[i+1]`:

    y = W_i[ids] + (left_i^T[ids] * scale_i) right_i          words
    y = x + table_i[places],  or x where a place is -1        added rows

where one task's `left_i^T`, `scale_i` and `right_i` are its resident block U, singular values and V; a set of
several tasks has its core folded into both sides, and no scale (see `kernels.low_rank.fused`, whose records
these are); a materialised segment has its own W_i and rank 0, and a base-only one the shared W and rank 0.

ids and places [N] int64; W_i [V, D], left_i [rank, V], scale_i [rank], right_i [rank, D], table_i [n, D], x
and y [N, D], of one dtype: bfloat16, float16, or float32 (see `kernels.gpu_architecture.product_precision`).
Sums are in float32. Only y is written, every element once, by plain stores; rows in the plan's tail come out
as zeros, and segments may be empty. Ids must be within V and places within n: nothing checks them here. A
row's bits depend on its id and its segment's table alone: tiles have one shape, and a rank is summed in one
order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from mass_serve.kernels.gpu_architecture import architecture_of, product_precision
from mass_serve.kernels.low_rank.deltas import Delta, MaterialisedWeight
from mass_serve.kernels.low_rank.fused import INTERPRETED, folded
from mass_serve.kernels.low_rank.places import LinearPlace, linear_fields
from mass_serve.kernels.low_rank.triton_kernels import address
from mass_serve.kernels.low_rank.triton_packed import packed_places, packed_unit, unpacked
from mass_serve.kernels.records import LinearField, PositionField, TileField, position_fields, record
from mass_serve.kernels.segment_plan import SegmentPlan, Tiling

BLOCK_ROWS = 16  # of y: what the tensor cores take at the least, for texts are short
BLOCK_COLUMNS = 64  # of y
BLOCK_RANK = 32  # summed at a time
WARPS = 4
STAGES = 2  # of three a tile in float32 spills on an RTX 5090
WEIGHT: tl.constexpr = tl.constexpr(LinearField.WEIGHT.value)
LEFT: tl.constexpr = tl.constexpr(LinearField.LEFT.value)
RIGHT: tl.constexpr = tl.constexpr(LinearField.RIGHT.value)
SCALE: tl.constexpr = tl.constexpr(LinearField.SCALE.value)
RANK: tl.constexpr = tl.constexpr(LinearField.RANK.value)
BITS: tl.constexpr = tl.constexpr(LinearField.BITS.value)
TABLE: tl.constexpr = tl.constexpr(PositionField.POSITIONS.value)
TILE_FIELDS: tl.constexpr = tl.constexpr(len(TileField))
FIRST_ROW: tl.constexpr = tl.constexpr(TileField.FIRST_ROW.value)
END_ROW: tl.constexpr = tl.constexpr(TileField.END_ROW.value)
FIRST_SEGMENT: tl.constexpr = tl.constexpr(TileField.FIRST_SEGMENT.value)


@triton.jit
def packed_rows(
    sums,
    table,
    own,
    words,
    columns,
    inside,
    wanted,
    rank,
    bits,
    vocabulary,
    width,
    SUM: tl.constexpr,
    element_type: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Adds `(left_i^T[ids] * scale_i) right_i` to the sums of a tile, where both sides are packed."""
    left = address(table, own + LEFT, tl.int8, 1)
    right = address(table, own + RIGHT, tl.int8, 1)
    scale = address(table, own + SCALE, tl.float32, 1)
    left_bytes, left_byte, left_up = packed_places(words, vocabulary, (vocabulary + 1) // 2, bits, 1)
    right_bytes, right_byte, right_up = packed_places(columns, width, (width + 1) // 2, bits, 1)
    unit = packed_unit(bits, element_type)
    for start in range(0, rank, SUM):
        r = start + tl.arange(0, SUM)
        of_rank = r < rank
        wide = r.to(tl.int64)
        chosen = left + wide[None, :] * left_bytes + left_byte[:, None]
        a = tl.load(chosen, mask=inside[:, None] & of_rank[None, :], other=0)
        a = unpacked(a, left_up[:, None], bits, element_type).to(tl.float32)
        a *= tl.load(scale + r, mask=of_rank, other=0.0)[None, :] * (unit * unit)
        b_mask = of_rank[:, None] & wanted[None, :]
        b = tl.load(right + wide[:, None] * right_bytes + right_byte[None, :], mask=b_mask, other=0)
        b = unpacked(b, right_up[None, :], bits, element_type)
        if UPCAST:
            b = b.to(tl.float32)
        else:
            a = a.to(element_type)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums


@triton.jit(do_not_specialize=["record_length", "field", "vocabulary"])
def embedding_kernel(
    ids,
    y,
    tiles,
    table,
    record_length,
    field,
    vocabulary,
    width,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
    PACKED: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The words of this module's docstring, a tile of rows of one segment and COLUMNS columns at a time."""
    tile, block = tl.program_id(0), tl.program_id(1)
    tiles += TILE_FIELDS * tile
    first_row = tl.load(tiles + FIRST_ROW)
    end_row = tl.load(tiles + END_ROW)
    segment = tl.load(tiles + FIRST_SEGMENT)
    if first_row == end_row:
        return
    element_type: tl.constexpr = y.dtype.element_ty
    rows = first_row.to(tl.int64) + tl.arange(0, ROWS)
    columns = block * COLUMNS + tl.arange(0, COLUMNS)
    inside, wanted = rows < end_row, columns < width
    everything = inside[:, None] & wanted[None, :]
    places = y + rows[:, None] * width + columns[None, :]
    if segment < 0:
        tl.store(places, tl.zeros((ROWS, COLUMNS), dtype=element_type), mask=everything)
        return
    own = segment.to(tl.int64) * record_length + field
    words = tl.load(ids + rows, mask=inside, other=0)
    weight = address(table, own + WEIGHT, element_type, 1)
    sums = tl.load(weight + words[:, None] * width + columns[None, :], mask=everything, other=0.0).to(
        tl.float32
    )
    rank = tl.load(table + own + RANK).to(tl.int32)
    bits = 0
    if PACKED:
        bits = tl.load(table + own + BITS).to(tl.int32)
    if bits > 0:
        sums = packed_rows(
            sums,
            table,
            own,
            words,
            columns,
            inside,
            wanted,
            rank,
            bits,
            vocabulary,
            width,
            SUM,
            element_type,
            UPCAST,
            PRECISION,
        )
    elif rank > 0:
        left = address(table, own + LEFT, element_type, 1)
        right = address(table, own + RIGHT, element_type, 1)
        has_scale = tl.load(table + own + SCALE) != 0
        scale = address(table, own + SCALE, element_type, 1)
        for start in range(0, rank, SUM):
            r = start + tl.arange(0, SUM)
            of_rank = r < rank
            wide = r.to(tl.int64)
            chosen = left + wide[None, :] * vocabulary + words[:, None]
            a = tl.load(chosen, mask=inside[:, None] & of_rank[None, :], other=0.0).to(tl.float32)
            a *= tl.load(scale + r, mask=of_rank & has_scale, other=1.0).to(tl.float32)[None, :]
            b_mask = of_rank[:, None] & wanted[None, :]
            b = tl.load(right + wide[:, None] * width + columns[None, :], mask=b_mask, other=0.0)
            if UPCAST:
                b = b.to(tl.float32)
            else:
                a = a.to(element_type)
            sums = tl.dot(a, b, sums, input_precision=PRECISION)
    tl.store(places, sums.to(element_type), mask=everything)


@triton.jit(do_not_specialize=["record_length", "field"])
def added_rows_kernel(
    x,
    y,
    places,
    sample_segments,
    table,
    record_length,
    field,
    width,
    BLOCK: tl.constexpr,
):
    """One added row of this module's docstring."""
    row = tl.program_id(0).to(tl.int64)
    segment = tl.load(sample_segments + row)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    own = row * width + columns
    if segment < 0:
        tl.store(y + own, tl.zeros((BLOCK,), dtype=y.dtype.element_ty), mask=inside)
        return
    values = tl.load(x + own, mask=inside, other=0.0).to(tl.float32)
    place = tl.load(places + row)
    if place >= 0:
        rows = address(table, segment.to(tl.int64) * record_length + field + TABLE, y.dtype.element_ty, 1)
        values += tl.load(rows + place * width + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + own, values.to(y.dtype.element_ty), mask=inside)


def segmented_embedding(
    ids: Tensor, table: Tensor, deltas: Sequence[Delta], row_offsets: Sequence[int]
) -> Tensor:
    """The same as `kernels.embedding.reference.segmented_embedding`, with a plan made for this one call."""
    if len(row_offsets) != len(deltas) + 1 or row_offsets[0] != 0 or row_offsets[-1] != len(ids):
        raise ValueError(
            f"{len(deltas)} segments over {len(ids)} rows do not fit offsets {tuple(row_offsets)}"
        )
    deltas = [folded(delta, table.dtype) for delta in deltas]
    fields = [linear_fields(delta, table) for delta in deltas]
    records = [record(len(LinearField), {0: own}) for own in fields]
    plan = SegmentPlan(len(ids), len(deltas), len(LinearField), table.device)
    plan.update(row_offsets, records, [isinstance(delta, MaterialisedWeight) for delta in deltas])
    vocabulary, width = table.shape
    # Of the ranks the kernel reads its own from the records.
    packed = any(own.get(LinearField.BITS) for own in fields)
    place = LinearPlace(0, vocabulary, width, rank=0, max_rank=0, shared_weight=True, packed=packed)
    return planned_embedding(ids, plan, place, table.dtype)


def planned_embedding(ids: Tensor, plan: SegmentPlan, place: LinearPlace, dtype: torch.dtype) -> Tensor:
    """The words y [N, D] for the N samples of a plan, each of which is one token, by the plan's records."""
    y = torch.empty(len(ids), place.d_in, dtype=dtype, device=ids.device)
    tiles = plan.tiles(Tiling(tokens=1, block=BLOCK_ROWS, per_segment=True))
    embedding_kernel[(len(tiles), triton.cdiv(place.d_in, BLOCK_COLUMNS))](
        ids.contiguous(),
        y,
        tiles,
        plan.table,
        plan.table.shape[1],
        place.field,
        place.d_out,
        place.d_in,
        ROWS=BLOCK_ROWS,
        COLUMNS=BLOCK_COLUMNS,
        SUM=BLOCK_RANK,
        PACKED=place.packed,
        UPCAST=INTERPRETED,
        PRECISION=product_precision(dtype, architecture_of(ids.device)),
        num_warps=WARPS,
        num_stages=STAGES,
    )
    return y


def segmented_added_rows(
    x: Tensor, tables: Sequence[Tensor], places: Tensor, row_offsets: Sequence[int]
) -> Tensor:
    """The added rows of this module's docstring, with a plan made for this one call."""
    records = [record(len(PositionField), {0: position_fields(None, own)}) for own in tables]
    plan = SegmentPlan(len(x), len(records), len(PositionField), x.device)
    plan.update(row_offsets, records, [False] * len(records))
    return planned_added_rows(x, plan, places, field=0)


def planned_added_rows(x: Tensor, plan: SegmentPlan, places: Tensor, *, field: int) -> Tensor:
    """The added rows y [N, D] for the N samples of a plan, each of which is one token."""
    x = x.contiguous()
    y = x.new_empty(x.shape)
    width = x.shape[-1]
    added_rows_kernel[(x.numel() // width,)](
        x,
        y,
        places.contiguous(),
        plan.sample_segments,
        plan.table,
        plan.table.shape[1],
        field,
        width,
        BLOCK=triton.next_power_of_2(width),
        num_warps=WARPS,
    )
    return y
