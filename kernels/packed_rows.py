"""Directions of few bits: whole numbers of 8 bits, or of 4 of which two share a byte.

    rows = PackedRows.of(torch.tensor([[3, -7, 0], [1, 1, 2]], dtype=torch.int8), bits=4)
    rows.directions()  # [2, 3] float32, each row of length 1

Row i of them is the direction `codes_i / ||codes_i||` of D numbers, so that there is no scale to keep: what a
direction is multiplied by is its singular value's. A byte of 8 bits is one number. Of 4 bits a row has
`H = ceil(D / 2)` bytes, and byte j holds column j in its low four bits and column `H + j` in its high ones,
both in two's complement; where D is odd, the last high ones are 0. Halves, and not neighbours, share a byte:
what is unpacked lies side by side, and a kernel multiplies by one half of the columns after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Bits = Literal[4, 8]


def bytes_of_row(width: int, bits: Bits) -> int:
    """How many bytes a row of `width` numbers takes."""
    return width if bits == 8 else -(-width // 2)


@dataclass(frozen=True, eq=False)
class PackedRows:
    """R directions of D numbers, as they lie in memory; some of the columns where it is a part of a whole."""

    codes: Tensor  # int8 [R, bytes_of_row(D, bits)]
    width: int  # D
    bits: Bits
    columns: range | None = None  # neighbours; None: all of them

    def __post_init__(self) -> None:
        expected = bytes_of_row(self.width, self.bits)
        if self.codes.dtype != torch.int8 or self.codes.ndim != 2 or self.codes.shape[1] != expected:
            raise ValueError(
                f"{self.width} numbers of {self.bits} bits are [R, {expected}] of int8; "
                f"got {tuple(self.codes.shape)} of {self.codes.dtype}"
            )

    @classmethod
    def of(cls, numbers: Tensor, bits: Bits) -> PackedRows:
        """Packs int8 numbers [R, D] of so many bits, of them a sign. Raises ValueError for others."""
        width, limit = numbers.shape[1], 1 << bits - 1
        if numbers.dtype != torch.int8 or not torch.equal(numbers.clamp(-limit, limit - 1), numbers):
            raise ValueError(f"whole numbers from {-limit} to {limit - 1} were expected, as int8")
        if bits == 8:
            return cls(numbers, width, bits)
        half = bytes_of_row(width, bits)
        low, high = numbers[:, :half], F.pad(numbers[:, half:], (0, 2 * half - width))
        return cls(high * 16 + (low & 15), width, bits)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def shape(self) -> tuple[int, int]:
        """R, and the number of the columns that are here."""
        return len(self.codes), len(self._columns)

    @property
    def _columns(self) -> range:
        return range(self.width) if self.columns is None else self.columns

    @property
    def nbytes(self) -> int:
        """The memory of the packed numbers."""
        return self.codes.nbytes

    @cached_property
    def lengths(self) -> Tensor:
        """The length `||codes_i||` of each whole row, [R] float32; 0 for a row that is no direction."""
        lengths: Tensor = torch.linalg.vector_norm(replace(self, columns=None).numbers(torch.float32), dim=1)
        return lengths

    def leading(self, rank: int) -> PackedRows:
        """The first `rank` rows, or all of them where there are fewer (a view)."""
        return replace(self, codes=self.codes[:rank])

    def of_columns(self, columns: slice) -> PackedRows:
        """The same rows with some of their columns, `a:b` of the whole (a view)."""
        return replace(self, columns=range(self.width)[columns])

    def contiguous(self) -> PackedRows:
        """The same columns as rows of their own, which are copied where they are a part of a whole."""
        if self.columns is None:
            return replace(self, codes=self.codes.contiguous())
        return PackedRows.of(self.numbers(torch.int8), self.bits)

    def to(self, device: torch.device) -> PackedRows:
        """A copy on a device."""
        return replace(self, codes=torch.empty_like(self.codes, device=device).copy_(self.codes))

    def numbers(self, dtype: torch.dtype) -> Tensor:
        """The whole numbers [R, columns], unpacked, in memory of their own."""
        start, stop = self._columns.start, self._columns.stop
        if self.bits == 8:
            return self.codes[:, start:stop].to(dtype, copy=True)
        half = self.codes.shape[1]
        low, high = (
            self.codes[:, start:half][:, : max(0, stop - start)],
            self.codes[:, max(0, start - half) :],
        )
        high = high[:, : max(0, stop - max(start, half))]
        return torch.cat([low << 4, high], dim=1).bitwise_right_shift_(4).to(dtype)

    def numbers_at(self, columns: Tensor, dtype: torch.dtype) -> Tensor:
        """The whole numbers [R, n] of the columns that `columns` [n] int64 names."""
        if self.bits == 8:
            return self.codes[:, columns].to(dtype)
        half = self.codes.shape[1]
        is_high = columns >= half
        chosen = self.codes[:, columns - half * is_high]
        return torch.where(is_high, chosen >> 4, (chosen << 4) >> 4).to(dtype)

    def directions(self) -> Tensor:
        """The rows of length 1, [R, D] float32; a row of zeros stays one."""
        return self.numbers(torch.float32) / self.lengths.clamp_min(1)[:, None]


# Rows of a block: plain numbers [R, D], or packed ones.
Rows = Tensor | PackedRows


def numbers_of(rows: Rows, dtype: torch.dtype) -> Tensor:
    """What a product multiplies by, [R, D] in `dtype`: of packed rows the whole numbers."""
    return rows.numbers(dtype) if isinstance(rows, PackedRows) else rows.to(dtype)


def with_more_rows(rows: Rows, count: int) -> Rows:
    """The same rows and below them `count` rows of zeros."""
    if not count:
        return rows
    if isinstance(rows, PackedRows):
        return replace(rows, codes=F.pad(rows.codes, (0, 0, 0, count)))
    return F.pad(rows, (0, 0, 0, count))


def directions_of(rows: Rows) -> Tensor:
    """The rows themselves: packed ones in float32, plain ones as they lie."""
    return rows.directions() if isinstance(rows, PackedRows) else rows


def lengths_of(rows: Rows) -> Tensor:
    """How much longer than the rows are the numbers that stand for them, [R] float32: 1 for plain ones."""
    if isinstance(rows, PackedRows):
        return rows.lengths
    return torch.ones(len(rows), device=rows.device)
