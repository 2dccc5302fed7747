"""The second kernel of a segmented linear, and what both are made of; see `kernels.low_rank.fused`."""

import triton
import triton.language as tl

from mass_serve.kernels.activations import TANH_CUBE, TANH_SLOPE
from mass_serve.kernels.layer_norm.triton_tiles import normalised
from mass_serve.kernels.low_rank.triton_packed import packed_places, unpacked
from mass_serve.kernels.records import LinearField, TileField

WEIGHT: tl.constexpr = tl.constexpr(LinearField.WEIGHT.value)
BIAS: tl.constexpr = tl.constexpr(LinearField.BIAS.value)
LEFT: tl.constexpr = tl.constexpr(LinearField.LEFT.value)
RIGHT: tl.constexpr = tl.constexpr(LinearField.RIGHT.value)
SCALE: tl.constexpr = tl.constexpr(LinearField.SCALE.value)
RANK: tl.constexpr = tl.constexpr(LinearField.RANK.value)
BITS: tl.constexpr = tl.constexpr(LinearField.BITS.value)
SLOPE: tl.constexpr = tl.constexpr(TANH_SLOPE)
SLOPE_CUBE: tl.constexpr = tl.constexpr(TANH_SLOPE * TANH_CUBE)
TILE_FIELDS: tl.constexpr = tl.constexpr(len(TileField))
FIRST_ROW: tl.constexpr = tl.constexpr(TileField.FIRST_ROW.value)
END_ROW: tl.constexpr = tl.constexpr(TileField.END_ROW.value)
FIRST_SEGMENT: tl.constexpr = tl.constexpr(TileField.FIRST_SEGMENT.value)
LAST_SEGMENT: tl.constexpr = tl.constexpr(TileField.LAST_SEGMENT.value)


@triton.jit
def address(table, place, element_type: tl.constexpr, ALIGNMENT: tl.constexpr):
    """The pointer that stands at that place of a record, a multiple of ALIGNMENT bytes."""
    return tl.multiple_of(tl.load(table + place).to(tl.pointer_type(element_type)), ALIGNMENT)


@triton.jit
def row_length(length, element_type: tl.constexpr, ALIGNMENT: tl.constexpr):
    """The same length of rows that begin at multiples of ALIGNMENT bytes, which the compiler then knows."""
    numbers: tl.constexpr = ALIGNMENT // (element_type.primitive_bitwidth // 8)
    return length // numbers * numbers


@triton.jit
def product(
    x,
    norm,
    weight,
    inside,
    wanted,
    d_in,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`x weight^T` [BLOCK_M, BLOCK_N] in float32 of the rows `inside` of x and `wanted` of weight.

    With a `norm` the rows of x are `normalised` first.
    """
    # Offsets inside a tile fit 32 bits; those of the tile, in the pointers, have 64.
    k = tl.arange(0, BLOCK_K)
    a_places = tl.arange(0, BLOCK_M)[:, None] * d_in + k[None, :]
    b_places = tl.arange(0, BLOCK_N)[None, :] * d_in + k[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, d_in, BLOCK_K):
        a_mask, b_mask = inside[:, None], wanted[None, :]
        if not EVEN_K:
            of_k = k < d_in - start
            a_mask, b_mask = a_mask & of_k[None, :], b_mask & of_k[:, None]
        a = tl.load(x + start + a_places, mask=a_mask, other=0.0)
        if norm is not None:
            a = normalised(a, start, k < d_in - start, a_mask, a_places, norm)
        b = tl.load(weight + start + b_places, mask=b_mask, other=0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums


@triton.jit
def activate(sums, ACTIVATION: tl.constexpr):
    """The activation of that name in `kernels.activations`, in float32; none where it is None."""
    # At the beginning: what stands behind the branches is compiled whichever of them returned.
    by_sigmoid: tl.constexpr = (
        (ACTIVATION == "quick_gelu") or (ACTIVATION == "gelu_tanh") or (ACTIVATION == "silu")
    )
    known: tl.constexpr = (ACTIVATION is None) or (ACTIVATION == "gelu") or by_sigmoid
    tl.static_assert(known, "there is no such activation")
    if ACTIVATION == "quick_gelu":
        return sums / (1.0 + tl.exp(-1.702 * sums))
    if ACTIVATION == "gelu_tanh":
        return sums / (1.0 + tl.exp(-sums * (SLOPE + SLOPE_CUBE * sums * sums)))
    if ACTIVATION == "silu":
        return sums / (1.0 + tl.exp(-sums))
    if ACTIVATION == "gelu":
        return 0.5 * sums * (1.0 + tl.erf(sums * 0.7071067811865476))
    return sums


@triton.jit
def finish(sums, y, skip, inside, width, stride, HAS_SKIP: tl.constexpr, ACTIVATION: tl.constexpr):
    """`y = act(sums) + skip` for the rows `inside` and the first `width` columns of a tile."""
    rows, columns = tl.arange(0, sums.shape[0]), tl.arange(0, sums.shape[1])
    places = rows[:, None] * stride + columns[None, :]
    wanted = inside[:, None] & (columns < width)[None, :]
    sums = activate(sums, ACTIVATION)
    if HAS_SKIP:
        sums += tl.load(skip + places, mask=wanted, other=0.0).to(tl.float32)
    tl.store(y + places, sums.to(y.dtype.element_ty), mask=wanted)


@triton.jit(do_not_specialize=["num_tiles", "record_length", "field", "tokens"])
def expand_kernel(
    x,
    h,
    y,
    skip,
    tiles,
    offsets,
    table,
    num_tiles,
    record_length,
    field,
    tokens,
    h_width,
    d_in,
    d_out,
    half,
    columns_of_y,
    first_column,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN_K: tl.constexpr,
    ALIGN_IN: tl.constexpr,
    ALIGN_OUT: tl.constexpr,
    LOW_RANK: tl.constexpr,
    PACKED: tl.constexpr,
    RUN: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    ACTIVATION: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`y = act(x W_i^T + h left_i + b_i) + skip` for the rows `offsets[i]:offsets[i+1]`, tile by tile.

    Columns `first_column:first_column + columns_of_y` of the product. x [N, d_in], h [N, h_width], y and
    skip [N, columns_of_y] of one dtype; W_i [d_out, d_in], left_i [rank_i, d_out], b_i [d_out] or none.
    With PACKED some left_i may be packed: `half` is what a row of 4 bits takes, RUN that of `packed_places`.
    Rows of x and W_i begin at multiples of ALIGN_IN bytes, wanted columns of left_i at those of ALIGN_OUT.
    y is mutated, every element of it written once: zeros in the tail. All rows of a tile have one W_i; where
    they are of several segments, each segment adds its own part to its rows and 0 to the others. Everything
    is summed in float32 in one accumulator: along d_in, along the rank, then the bias.
    """
    program = tl.program_id(0)
    # Programs of a group share rows of x and columns of W in the cache.
    blocks = tl.cdiv(columns_of_y, BLOCK_N)
    group = program // (GROUP * blocks)
    group_tiles = tl.minimum(num_tiles - group * GROUP, GROUP)
    tile = group * GROUP + (program % (GROUP * blocks)) % group_tiles
    block = (program % (GROUP * blocks)) // group_tiles
    tiles += TILE_FIELDS * tile
    first_row = tl.load(tiles + FIRST_ROW)
    end_row = tl.load(tiles + END_ROW)
    segment = tl.load(tiles + FIRST_SEGMENT)
    last_segment = tl.load(tiles + LAST_SEGMENT)
    if first_row == end_row:
        return
    element_type: tl.constexpr = x.dtype.element_ty
    # Offsets inside a tile fit 32 bits; those of the tile, in the pointers, have 64.
    rows, columns = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    inside, wanted = rows < end_row - first_row, columns < columns_of_y - block * BLOCK_N
    everything = inside[:, None] & wanted[None, :]
    corner = first_row.to(tl.int64) * columns_of_y + block * BLOCK_N
    places = rows[:, None] * columns_of_y + columns[None, :]
    if segment < 0:
        tl.store(y + corner + places, tl.zeros((BLOCK_M, BLOCK_N), dtype=element_type), mask=everything)
        return
    first_column += block * BLOCK_N
    record = segment.to(tl.int64) * record_length + field
    if not EVEN_K:
        d_in = row_length(d_in, element_type, ALIGN_IN)
    weight = address(table, record + WEIGHT, element_type, ALIGN_IN)
    weight += first_column.to(tl.int64) * d_in
    sums = product(
        x + first_row.to(tl.int64) * d_in,
        None,
        weight,
        inside,
        wanted,
        d_in,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
        EVEN_K,
        UPCAST,
        PRECISION,
    )
    h += first_row.to(tl.int64) * h_width
    r = tl.arange(0, BLOCK_R)
    for i in range(segment, last_segment + 1):
        start_of_own = tl.load(offsets + i) * tokens - first_row
        end_of_own = tl.load(offsets + i + 1) * tokens - first_row
        own = inside & (rows >= start_of_own) & (rows < end_of_own)
        if LOW_RANK:
            rank = tl.load(table + record + RANK).to(tl.int32)
            bits = 0
            if PACKED:
                bits = tl.load(table + record + BITS).to(tl.int32)
            if bits > 0:
                row_bytes, byte, up = packed_places(first_column + columns, d_out, half, bits, RUN)
                codes = address(table, record + LEFT, tl.int8, RUN)
                shrunk = h
                for start in range(0, rank, BLOCK_R):
                    b_mask = (r < rank - start)[:, None] & wanted[None, :]
                    a = tl.load(shrunk + rows[:, None] * h_width + r[None, :], mask=own[:, None], other=0.0)
                    b = tl.load(codes + r[:, None] * row_bytes + byte[None, :], mask=b_mask, other=0)
                    b = unpacked(b, up[None, :], bits, element_type)
                    shrunk += BLOCK_R
                    codes += BLOCK_R * row_bytes
                    if UPCAST:
                        a, b = a.to(tl.float32), b.to(tl.float32)
                    sums = tl.dot(a, b, sums, input_precision=PRECISION)
            else:
                left = address(table, record + LEFT, element_type, ALIGN_OUT) + first_column
                shrunk = h
                for start in range(0, rank, BLOCK_R):
                    b_mask = (r < rank - start)[:, None] & wanted[None, :]
                    a = tl.load(shrunk + rows[:, None] * h_width + r[None, :], mask=own[:, None], other=0.0)
                    b = tl.load(left + r[:, None] * d_out + columns[None, :], mask=b_mask, other=0.0)
                    shrunk += BLOCK_R
                    left += BLOCK_R * d_out
                    if UPCAST:
                        a, b = a.to(tl.float32), b.to(tl.float32)
                    sums = tl.dot(a, b, sums, input_precision=PRECISION)
        if tl.load(table + record + BIAS) != 0:
            bias = address(table, record + BIAS, element_type, 1) + first_column
            added = tl.load(bias + columns, mask=wanted, other=0.0).to(tl.float32)
            sums += tl.where(own[:, None], added[None, :], 0.0)
        record += record_length
    # In two halves: what the second needs takes no registers while the first is finished.
    halves = tl.permute(tl.reshape(sums, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1))
    left_half, right_half = tl.split(halves)
    wide = columns_of_y - block * BLOCK_N
    finish(left_half, y + corner, skip + corner, inside, wide, columns_of_y, HAS_SKIP, ACTIVATION)
    corner += BLOCK_N // 2
    wide -= BLOCK_N // 2
    finish(right_half, y + corner, skip + corner, inside, wide, columns_of_y, HAS_SKIP, ACTIVATION)
