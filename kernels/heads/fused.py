"""All that heads say of embeddings in two Triton kernels, whatever heads and however many they are.

Item i asks head `t = items[i, 0]` of the embedding z in row `items[i, 1]` of x, and its answer begins at
`y[items[i, 2]]`. With the head's weights W, bias b or logit scale s, and class vectors d_c, of C classes:

    logits_c  = z . W_c + b_c,  or  s (z / |z|) . W_c
    cosines_c = (z / |z|) . d_c                                              products
    scores    = max_c cosines_c,  max_c centred_c,  log confidence           scores
    y_i       = logits, scores, 1 if every logit is finite, else 0           C + BESIDE numbers

as `router.head_scores` and `backbone.labelling` define the scores. x [n, P] of any floating dtype, everything
else and all sums in float32; items [m, 3] int64. One answer follows the other in y, so that a head of many
classes makes those of the others no longer. Only y and the scratch c of its size are written, every element
once, but in c those beside an item's cosines. An item's bits depend on its embedding and its head alone:
every sum runs in one fixed order, and no block of classes or numbers depends on m. Nothing is read on the
host, and nothing of a batch specialises a kernel.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
import triton
from torch import Tensor

from mass_serve.kernels.gpu_architecture import architecture_of, warps_of
from mass_serve.kernels.heads import BESIDE
from mass_serve.kernels.heads.triton_kernels import products_kernel, scores_kernel
from mass_serve.kernels.records import ALIGNMENT, Fields, HeadField, address, record
from mass_serve.kernels.transfers import uploaded

BLOCK_CLASSES = 16
BLOCK_SUM = 128
MOST_COLUMNS = 1024  # that a program for scores looks at together
THREADS = 128


@dataclass(frozen=True, eq=False)
class Head:
    """Holds what the kernels read of one head, in float32 on their device: see this module's docstring."""

    weight: Tensor  # W [C, P]
    bias: Tensor | None  # b [C]; None where there is a scale
    scale: float | None  # s
    directions: Tensor  # d [C, P], of unit length; W itself where that is the same
    along: Tensor  # [C], lengths [C] and common: `router.HeadGeometry`
    lengths: Tensor
    common: float
    any_number: bool  # an input may have any number of the classes

    def record(self) -> Tensor:
        """The head's record [len(HeadField)] int64."""
        fields: Fields = {
            HeadField.WEIGHT: address(self.weight),
            HeadField.BIAS: address(self.bias),
            HeadField.SCALE: _bits(self.scale or 0.0),
            HeadField.DIRECTIONS: address(self.directions),
            HeadField.ALONG: address(self.along),
            HeadField.LENGTHS: address(self.lengths),
            HeadField.COMMON: _bits(self.common),
            HeadField.CLASSES: len(self.weight),
            HeadField.ANY_NUMBER: int(self.any_number),
        }
        return record(len(HeadField), {0: fields})


def _bits(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little", signed=True)


class Heads:
    """Heads of embeddings of one width, by their numbers; None for those that are never asked here."""

    def __init__(self, heads: Sequence[Head | None]) -> None:
        self._heads = heads  # the table holds their addresses
        asked = [one for one in heads if one is not None]
        self._classes = [0 if one is None else len(one.weight) for one in heads]
        rows = [address(matrix) for one in asked for matrix in (one.weight, one.directions)]
        self._aligned = math.gcd(ALIGNMENT, *rows)

    @cached_property
    def _table(self) -> Tensor:
        """The records of all heads, [T, len(HeadField)] int64, on their device."""
        empty = record(len(HeadField), {})
        rows = [empty if one is None else one.record() for one in self._heads]
        (device, *_) = {one.weight.device for one in self._heads if one is not None}
        return uploaded(torch.stack(rows), device)

    def items(self, asked: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int, int]], int]:
        """The items that ask heads of rows, their answers one after the other, and how many numbers y has."""
        starts = list(accumulate((self._classes[head] + BESIDE for head, _ in asked), initial=0))
        return [(*one, start) for one, start in zip(asked, starts, strict=False)], starts[-1]

    def __call__(self, x: Tensor, items: Tensor, size: int) -> Tensor:
        """y [size] float32 of this module's docstring; of at least one item."""
        x, count = x.contiguous(), len(items)
        columns, width = max(self._classes), x.shape[1]
        y, c = x.new_empty(size, dtype=torch.float32), x.new_empty(size, dtype=torch.float32)
        warps = warps_of(THREADS, architecture_of(x.device))
        products_kernel[(count, triton.cdiv(columns, BLOCK_CLASSES))](
            x,
            y,
            c,
            items,
            self._table,
            width,
            ALIGN=self._aligned,
            BLOCK=BLOCK_CLASSES,
            SUM=BLOCK_SUM,
            num_warps=warps,
        )
        block = min(triton.next_power_of_2(columns), MOST_COLUMNS)
        scores_kernel[(count,)](y, c, items, self._table, BLOCK=block, num_warps=warps)
        return y
