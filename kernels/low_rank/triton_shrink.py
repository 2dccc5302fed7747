"""The first kernel of a segmented linear; `kernels.low_rank.fused` says what it is for."""

import triton
import triton.language as tl

from mass_serve.kernels.layer_norm.triton_tiles import fill_with_zeros, row_statistics
from mass_serve.kernels.low_rank.triton_kernels import (
    BITS,
    END_ROW,
    FIRST_ROW,
    FIRST_SEGMENT,
    RANK,
    RIGHT,
    SCALE,
    TILE_FIELDS,
    address,
    product,
    row_length,
)
from mass_serve.kernels.low_rank.triton_packed import packed_product, packed_unit
from mass_serve.kernels.records import NormField

NORM_WEIGHT: tl.constexpr = tl.constexpr(NormField.WEIGHT.value)
NORM_BIAS: tl.constexpr = tl.constexpr(NormField.BIAS.value)


@triton.jit(do_not_specialize=["record_length", "field", "norm_field"])
def shrink_kernel(
    x,
    y,
    h,
    tiles,
    table,
    record_length,
    field,
    norm_field,
    h_width,
    d_in,
    half,
    eps,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,
    ALIGN_IN: tl.constexpr,
    NORM: tl.constexpr,
    PACKED: tl.constexpr,
    RUN: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`h = scale_i * (y right_i^T)` for the rows `offsets[i]:offsets[i+1]`, tile by tile.

    y are the rows of x, or with NORM those behind the LayerNorm of `kernels.layer_norm.fused`, which are
    written: every element once, by the programs of the first block of columns, also where a segment has no
    rank, and zeros in the tail. Without NORM nothing is.

    x and y [N, d_in], h [N, h_width] of one dtype; right_i [rank_i, d_in], scale_i [rank_i] or none. With
    PACKED some right_i may be packed, their scale_i in float32; `half` is what a row of 4 bits takes. Rows of
    x and of plain right_i, and w_i and b_i of the LayerNorm, begin at multiples of ALIGN_IN bytes, rows of
    packed right_i at multiples of RUN. h is mutated: in the blocks of BLOCK_N columns that hold a column
    below rank_i, zeros stand beyond rank_i. Sums are in float32, along d_in in blocks of BLOCK_K from the
    first to the last.
    """
    tile, block = tl.program_id(0), tl.program_id(1)
    tiles += TILE_FIELDS * tile
    first_row = tl.load(tiles + FIRST_ROW)
    end_row = tl.load(tiles + END_ROW)
    segment = tl.load(tiles + FIRST_SEGMENT)
    if first_row == end_row:
        return
    element_type: tl.constexpr = x.dtype.element_ty
    if not EVEN_K:
        d_in = row_length(d_in, element_type, ALIGN_IN)
    x += first_row.to(tl.int64) * d_in
    y += first_row.to(tl.int64) * d_in
    rows, columns = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    inside = rows < end_row - first_row
    writes = NORM and block == 0
    if segment < 0:
        if writes:
            fill_with_zeros(y, inside, d_in, BLOCK_M, BLOCK_K)
        return
    record = segment.to(tl.int64) * record_length + field
    rank = tl.load(table + record + RANK)
    if block * BLOCK_N >= rank and not writes:
        return
    of_rank = columns < rank - block * BLOCK_N
    norm = None
    if NORM:
        own = segment.to(tl.int64) * record_length + norm_field
        mean, scale = row_statistics(x, inside, d_in, eps, BLOCK_M, BLOCK_K)
        norm_weight = address(table, own + NORM_WEIGHT, element_type, ALIGN_IN)
        norm_bias = address(table, own + NORM_BIAS, element_type, ALIGN_IN)
        norm = (mean, scale, norm_weight, norm_bias, y, inside & writes)
    bits = 0
    if PACKED:
        bits = tl.load(table + record + BITS).to(tl.int32)
    if bits > 0:
        row_bytes = tl.where(bits == 8, d_in, half)
        codes = address(table, record + RIGHT, tl.int8, RUN) + block.to(tl.int64) * BLOCK_N * row_bytes
        sums = packed_product(
            x,
            norm,
            codes,
            inside,
            of_rank,
            d_in,
            half,
            bits,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            RUN,
            UPCAST,
            PRECISION,
        )
        wide = address(table, record + SCALE, tl.float32, 1) + block * BLOCK_N
        unit = packed_unit(bits, element_type)
        sums *= (tl.load(wide + columns, mask=of_rank, other=0.0) * (unit * unit))[None, :]
    else:
        right = address(table, record + RIGHT, element_type, ALIGN_IN) + block.to(tl.int64) * BLOCK_N * d_in
        sums = product(
            x, norm, right, inside, of_rank, d_in, BLOCK_M, BLOCK_N, BLOCK_K, EVEN_K, UPCAST, PRECISION
        )
        if tl.load(table + record + SCALE) != 0:
            factors = address(table, record + SCALE, element_type, 1) + block * BLOCK_N
            sums *= tl.load(factors + columns, mask=of_rank, other=0.0).to(tl.float32)[None, :]
    h += first_row.to(tl.int64) * h_width + block * BLOCK_N
    tl.store(h + rows[:, None] * h_width + columns[None, :], sums.to(element_type), mask=inside[:, None])
