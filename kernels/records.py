"""The layout of what the host leaves on the device for the kernels: written once, read by both sides.

A segment's record [record_length] int64 holds, for every operation of a pass, the fields of one of the types
below, one after the other; an address of 0 says that there is no such tensor. The map of a pass's tiles
[tiles, len(TileField)] int32 says which rows each tile has. Host code adds a member to the place where an
operation's fields begin; a kernel module makes a `tl.constexpr` of each member that it reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes: what one load instruction takes


class LinearField(IntEnum):
    """Holds what a segment has in one linear (see `kernels.low_rank.fused`): five addresses and two sizes."""

    WEIGHT = 0  # W_i [d_out, d_in]
    BIAS = 1  # b_i [d_out]
    LEFT = 2  # left_i [rank, d_out]
    RIGHT = 3  # right_i [rank, d_in]
    SCALE = 4  # scale_i [rank]
    RANK = 5  # rows of left_i and right_i; 0 where there are none
    BITS = 6  # of a number of left_i and right_i where they are packed (see `kernels.packed_rows`); 0: plain


class NormField(IntEnum):
    """Holds what a segment has in one LayerNorm (see `kernels.layer_norm.fused`): two addresses."""

    WEIGHT = 0  # w_i [D]
    BIAS = 1  # b_i [D]


class PositionField(IntEnum):
    """Holds what a segment has in its tokens (see `kernels.positions.fused`): two addresses."""

    CLASS_TOKEN = 0  # class_i [D]
    POSITIONS = 1  # positions_i [L, D]


class HeadField(IntEnum):
    """Holds what a classification head has (see `kernels.heads.fused`): five addresses, four numbers."""

    WEIGHT = 0  # W [C, P]
    BIAS = 1  # b [C]; 0 where there is a scale
    SCALE = 2  # the bits of a float32
    DIRECTIONS = 3  # d [C, P]; the address of W where they are the same
    ALONG = 4  # [C]
    LENGTHS = 5  # [C]
    COMMON = 6  # the bits of a float32
    CLASSES = 7  # C
    ANY_NUMBER = 8  # 1 where an input may have any number of the classes, else 0


class TileField(IntEnum):
    """One tile of rows; the segments are -1 in the tail, and an unused tile has no rows."""

    FIRST_ROW = 0
    END_ROW = 1
    FIRST_SEGMENT = 2
    LAST_SEGMENT = 3


Fields = dict[IntEnum, int]  # of one operation; what is left out is 0


def record(length: int, operations: Mapping[int, Fields]) -> Tensor:
    """A segment's record [length] int64: each operation's fields, from the place where they begin."""
    filled = [0] * length
    for place, fields in operations.items():
        for field, value in fields.items():
            filled[place + field] = value
    return torch.tensor(filled, dtype=torch.int64)


def alignment(itemsize: int, *lengths: int) -> int:
    """Returns of how many bytes every row begins at a multiple, at most ALIGNMENT. Allocations do at any."""
    return math.gcd(ALIGNMENT, *(itemsize * length for length in lengths))


def address(tensor: Tensor | None, multiple: int = 1) -> int:
    """Returns what a record holds of a tensor, which must live as long as the record; 0 for none.

    Raises ValueError for a tensor that is not contiguous, as the kernels know sizes and no strides, and for
    one that does not begin at a multiple of so many bytes.
    """
    if tensor is None:
        return 0
    if not tensor.is_contiguous():
        raise ValueError(f"weights must be contiguous, got strides {tensor.stride()}")
    if tensor.data_ptr() % multiple:
        raise ValueError(f"weights must begin at multiples of {multiple} bytes, got {tensor.data_ptr():#x}")
    return tensor.data_ptr()


def norm_fields(weight: Tensor, bias: Tensor) -> Fields:
    """A segment's fields in one LayerNorm with weight and bias [D], which begin as rows of a matrix do."""
    multiple = alignment(weight.element_size(), len(weight))
    return {NormField.WEIGHT: address(weight, multiple), NormField.BIAS: address(bias, multiple)}


def position_fields(class_token: Tensor | None, positions: Tensor) -> Fields:
    """A segment's fields in its tokens, with class token [D] or none and positions [L, D]."""
    return {PositionField.CLASS_TOKEN: address(class_token), PositionField.POSITIONS: address(positions)}
