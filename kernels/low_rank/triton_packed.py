"""What the Triton kernels do with packed rows (see `kernels.packed_rows`): they are unpacked in registers."""

import triton
import triton.language as tl

from mass_serve.kernels.layer_norm.triton_tiles import normalised


@triton.jit
def unpacked(codes, up, bits, element_type: tl.constexpr):
    """The numbers that stand `up` bits below the highest of bytes, for a product (see `packed_unit`)."""
    numbers = ((codes.to(tl.int32) << (24 + up)) >> (32 - bits)).to(tl.float32)
    if element_type == tl.float16:
        numbers *= 1.0 / (1 << (bits - 1)).to(tl.float32)
    return numbers.to(element_type)


@triton.jit
def packed_unit(bits, element_type: tl.constexpr):
    """What unpacked numbers were divided by: in float16 the other factor would be too small beside them."""
    unit = 1.0
    if element_type == tl.float16:
        unit = (1 << (bits - 1)).to(tl.float32)
    return unit


@triton.jit
def packed_row_bytes(width, half, bits, RUN: tl.constexpr):
    """The bytes of a packed row of `width` numbers: a multiple of RUN, which the compiler then knows."""
    row_bytes = tl.where(bits == 8, width, half)
    return row_bytes // RUN * RUN if RUN < 16 else row_bytes


@triton.jit
def packed_places(columns, width, half, bits, RUN: tl.constexpr):
    """Of columns of packed rows of `width` numbers: bytes of a row, and the byte and shift of each column.

    RUN neighbours, from a multiple of RUN on, have neighbouring bytes.
    """
    row_bytes = packed_row_bytes(width, half, bits, RUN)
    is_high = columns >= row_bytes
    byte = tl.where(is_high, columns - row_bytes, columns)
    up = tl.where((bits == 4) & (columns < row_bytes), 4, 0)
    return row_bytes, tl.max_contiguous(tl.multiple_of(byte, RUN), RUN), up


@triton.jit
def packed_product(
    x,
    norm,
    codes,
    inside,
    wanted,
    d_in,
    half,
    bits,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    RUN: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`x numbers^T` [BLOCK_M, BLOCK_N] in float32 of the rows `inside` of x and `wanted` of packed rows.

    They are unpacked in registers, the numbers in the low bits of all bytes first. With a `norm` the rows of
    x are `normalised` before.
    """
    element_type: tl.constexpr = x.dtype.element_ty
    row_bytes = packed_row_bytes(d_in, half, bits, RUN)
    k = tl.arange(0, BLOCK_K)
    a_places = tl.arange(0, BLOCK_M)[:, None] * d_in + k[None, :]
    b_places = tl.arange(0, BLOCK_N)[None, :] * row_bytes + k[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for first in range(0, d_in, row_bytes):
        up = tl.where((bits == 4) & (first == 0), 4, 0)
        for start in range(0, row_bytes, BLOCK_K):
            # Of an odd width the last high bits are 0, and x ends before them.
            of_k = (k < row_bytes - start) & (k < d_in - first - start)
            a_mask = inside[:, None] & of_k[None, :]
            b_mask = wanted[None, :] & (k < row_bytes - start)[:, None]
            a = tl.load(x + first + start + a_places, mask=a_mask, other=0.0)
            if norm is not None:
                a = normalised(a, first + start, of_k, a_mask, a_places, norm)
            b = unpacked(tl.load(codes + start + b_places, mask=b_mask, other=0), up, bits, element_type)
            if UPCAST:
                a, b = a.to(tl.float32), b.to(tl.float32)
            sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums
