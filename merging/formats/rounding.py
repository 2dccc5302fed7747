"""Singular vectors rounded to whole numbers of few bits, so that their product is as near as it was before.

A row of u^T or vh becomes whole numbers c of at most `2^(bits - 1) - 1` in size, and stands for the direction
`c / ||c||`: what the rounding took from its length is made up for by the singular value. Two things make the
product nearer than rounding by the step that the largest number of a row prescribes:

- of several steps the one is taken whose c is nearest in its angle: most numbers of a row are far smaller
  than its largest, which is rather cut off;
- V is rounded first, and U diag(s) is then what is nearest to the change with the rounded V, by least
  squares:

      minimise || U S V - W^T V' ||_F   =>   W = (V' V'^T)^-1 V' V^T S U^T,   rows W_i = s'_i u'_i

  Some of the error of V is so made up for by U, which is rounded itself, and by s.

Of fine-tuned encoders (benchmarks/block_formats.py) the first takes the error of 4 bits from 0.19 to 0.16 of
the change, the second to 0.15. A scale for each 32 numbers of a row took it to 0.12 and did no better in
accuracy, for an eighth more bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.merging.formats.low_rank import TaskSingularVectors

# Of a row's largest number: what becomes the largest whole number. All beyond are cut off to that.
CLIPPINGS = tuple(0.5 + 0.05 * i for i in range(11))


@dataclass(frozen=True)
class RoundedVectors:
    """R triplets of whole numbers: `delta ~ sum_i s_i (u_i / ||u_i||) (v_i / ||v_i||)^T`."""

    u_t: Tensor  # [R, d_out] int8
    s: Tensor  # [R] float32, descending, >= 0
    vh: Tensor  # [R, d_in] int8


def rounded(vectors: TaskSingularVectors, bits: int) -> RoundedVectors:
    """Rounds singular vectors of any float dtype to `bits` bits, 2 to 8, as this module's docstring says."""
    u_t, s, vh = vectors.u.T.double(), vectors.s.double(), vectors.vh.double()
    right = rounded_rows(vh, bits)
    directions = right.double() / _lengths(right)
    gram, crossed = directions @ directions.T, directions @ vh.T
    wanted = torch.linalg.pinv(gram, hermitian=True) @ (crossed @ (s[:, None] * u_t))
    # Nothing is left of a triplet that others make up for: its direction stays as it was.
    is_left = wanted.norm(dim=1, keepdim=True) > torch.finfo(torch.float32).tiny
    left = rounded_rows(torch.where(is_left, wanted, u_t), bits)
    values = (wanted * (left.double() / _lengths(left))).sum(1).clamp_min(0)
    order = values.argsort(descending=True, stable=True)
    return RoundedVectors(left[order], values[order].float(), right[order])


def rounded_rows(rows: Tensor, bits: int) -> Tensor:
    """Returns whole numbers [R, D] int8 in rows that are nearest in angle to those given, of all steps."""
    most = (1 << bits - 1) - 1
    largest = rows.abs().amax(dim=1, keepdim=True) if rows.numel() else rows[:, :1]
    unit = rows / largest.clamp_min(torch.finfo(rows.dtype).tiny) * most
    best, best_cosines = torch.zeros_like(unit), unit.new_full((len(rows), 1), -1.0)
    for clipping in CLIPPINGS:
        numbers = (unit / clipping).round().clamp_(-most, most)
        cosines = (numbers * unit).sum(1, keepdim=True) / _lengths(numbers)
        best = torch.where(cosines > best_cosines, numbers, best)
        best_cosines = torch.maximum(cosines, best_cosines)
    return best.to(torch.int8)


def _lengths(numbers: Tensor) -> Tensor:
    """The lengths [R, 1] of rows of whole numbers; 1 for zeros."""
    lengths: Tensor = torch.linalg.vector_norm(numbers.double(), dim=1, keepdim=True)
    return lengths.clamp_min(1)
