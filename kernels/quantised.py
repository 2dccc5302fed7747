"""Weights of a linear in one byte each, and products with them in whole numbers.

    W ~ diag(s) C,   s_j = max |W_j| / 127,   C = round(diag(s)^-1 W)
    x ~ diag(r) Q,   r_i = max |x_i| / 127,   Q = round(diag(r)^-1 x)
    x W^T ~ diag(r) (Q C^T) diag(s)

for the rows W_j, which are output channels, and the rows x_i, which are tokens. Weights are quantised once,
and rows in every product, each by itself. Sums of whole numbers are exact in any order, so a row's bits
depend on no other row, and neither on the number of rows nor on that of threads: nothing is padded here.

Where the processor sums products of int8 in 32 bits, C is in the order in which oneDNN reads it. oneDNN
multiplies unsigned numbers by signed ones: rows are `Q + 128` there, and 128 is its zero point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.activations import activate_

LARGEST = 127  # of 8 bits, and the same on both sides of 0
ZERO_POINT = 128
# Rows are taken in parts of at most so many numbers: products of fewer rows would be slower, and larger
# temporaries would leave the processor's cache between one operation and the next.
NUMBERS_AT_ONCE = 1 << 21
# Sums of so many products of two such numbers are below 2^24, to which float32 counts exactly.
EXACT_COLUMNS = 1024


@dataclass(frozen=True, eq=False)
class QuantisedWeight:
    """A weight W [d_out, d_in], a table of as many rows, or some of its output rows, in numbers of 8 bits."""

    codes: Tensor  # C, int8 [d_out, d_in]; where they are ordered, the whole C^T as oneDNN has it
    scales: Tensor  # s, float32 [d_out]; where the numbers are ordered, of the whole weight
    dtype: torch.dtype  # of what is multiplied by it, and of what it is widened to
    ordered_rows: range | None = None  # neighbours, of ordered numbers; None: they lie as they are numbered
    # Neighbours that are also in an order of their own, as they are multiplied without the other rows.
    apart: Mapping[range, QuantisedWeight] = field(default_factory=dict)

    @classmethod
    def of(cls, weight: Tensor, dtype: torch.dtype) -> QuantisedWeight:
        """Quantises a weight of any floating dtype, whose rows can be looked up."""
        weight = weight.float()
        scales = _scales(weight)
        return cls((weight / scales).round_().to(torch.int8), scales.flatten(), dtype)

    def ordered(self, apart: Iterable[slice] = ()) -> QuantisedWeight:
        """The weight in the order of oneDNN's products, where they are exact: it is then multiplied alone.

        The rows `apart` are copied: products with them alone do not read the others.
        """
        if self.ordered_rows is not None or not multiplies_int8():
            return self
        whole = range(len(self.scales))
        codes = torch.ops.onednn.qlinear_prepack(self.codes.contiguous(), None)
        parts = {whole[rows]: self[rows].ordered() for rows in apart}
        return replace(self, codes=codes, ordered_rows=whole, apart=parts)

    @property
    def shape(self) -> torch.Size:
        """[d_out, d_in]"""
        if self.ordered_rows is None:
            return self.codes.shape
        return torch.Size((len(self.ordered_rows), len(self.codes)))

    @property
    def device(self) -> torch.device:
        """The device of the numbers."""
        return self.codes.device

    @property
    def nbytes(self) -> int:
        """The memory of numbers and scales: of ordered ones the whole weight's, and those that lie apart."""
        return self.codes.nbytes + self.scales.nbytes + sum(own.nbytes for own in self.apart.values())

    def __getitem__(self, rows: slice | Tensor) -> QuantisedWeight:
        """The weight of some output rows: a view for a slice, a copy for numbers [n] int64.

        Of ordered numbers there are slices alone, whose products cost as much as those of the whole, unless
        they lie apart.
        """
        if self.ordered_rows is None:
            return replace(self, codes=self.codes[rows], scales=self.scales[rows])
        assert isinstance(rows, slice)
        chosen = self.ordered_rows[rows]
        return self.apart.get(chosen) or replace(self, ordered_rows=chosen)

    def widened(self) -> Tensor:
        """`diag(s) C` [d_out, d_in] in `dtype`, in memory of its own."""
        codes, scales = self.codes, self.scales
        if self.ordered_rows is not None:
            rows = slice(self.ordered_rows.start, self.ordered_rows.stop)
            codes, scales = codes.to_dense().T[rows], scales[rows]
        return codes.float().mul_(scales.unsqueeze(1)).to(self.dtype).contiguous()


def quantised_product_(
    y: Tensor, x: Tensor, weight: QuantisedWeight, added: Tensor | None, activation: Activation | None = None
) -> None:
    """`y = act(x W^T + added)` for x [N, d_in], y [N, d_out], and added [N, d_out], or [d_out], of one dtype.

    `added` may be y itself. What is between the whole numbers and y is computed in float32, and rounded once.
    """
    step = max(1, NUMBERS_AT_ONCE // max(x.shape[1], y.shape[1]))
    if len(x) <= step:  # as most are, and every slice costs a microsecond
        _put_product_(y, x, weight, added, activation)
        return
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        own = added if added is None or added.ndim == 1 else added[rows]
        _put_product_(y[rows], x[rows], weight, own, activation)


def _put_product_(
    y: Tensor, x: Tensor, weight: QuantisedWeight, added: Tensor | None, activation: Activation | None
) -> None:
    """The same for a part of the rows, and `added` [n, d_out], or [d_out]."""
    codes, scales = _quantised(x)
    sums = _scaled_sums(codes, weight).mul_(scales)
    if added is not None:
        sums.add_(added.float())
    y.copy_(sums if activation is None else activate_(sums, activation))


@cache
def multiplies_int8() -> bool:
    """Tells whether oneDNN sums products of int8 in 32 bits: elsewhere they overflow 16, without a word.

    The processor alone does not tell, as ONEDNN_MAX_CPU_ISA may keep oneDNN from using what it has.
    """
    if not torch.cpu.get_capabilities().get("avx512_vnni", False):
        return False
    codes, scales = torch.full((16, 64), LARGEST, dtype=torch.int8), torch.ones(16)
    in_order = torch.ops.onednn.qlinear_prepack(codes, None)
    weight = QuantisedWeight(in_order, scales, torch.float32, range(16))
    sums = _scaled_sums(torch.full((2, 64), ZERO_POINT + LARGEST, dtype=torch.uint8), weight)
    return bool((sums == 64 * LARGEST**2).all())


def _scaled_sums(codes: Tensor, weight: QuantisedWeight) -> Tensor:
    """`(Q C^T) diag(s)` [n, d_out] of `Q + 128` [n, d_in] uint8: exact sums, rounded to float32."""
    if (rows := weight.ordered_rows) is not None:
        whole = len(weight.scales)
        found: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(codes, 1.0, ZERO_POINT, weight.codes, weight.scales, _zero_points(whole)),
            *(None, 1.0, 0, torch.float32, "none", [], ""),
        )
        return found if len(rows) == whole else found[:, rows.start : rows.stop].contiguous()
    sums = torch.zeros(len(codes), len(weight.codes), dtype=torch.int32)
    for start in range(0, codes.shape[1], EXACT_COLUMNS):
        columns = slice(start, start + EXACT_COLUMNS)
        own = codes[:, columns].float().sub_(ZERO_POINT)
        sums += (own @ weight.codes[:, columns].float().T).int()
    return sums.float().mul_(weight.scales)


@cache
def _zero_points(channels: int) -> Tensor:
    """The zero points of weights, as oneDNN is told them: [d_out] int64."""
    return torch.zeros(channels, dtype=torch.int64)


def _quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """`Q + 128` [n, d] uint8 and r [n, 1] float32 of rows [n, d]."""
    own = x.to(torch.float32, copy=True)
    scales = _scales(own)
    # The sum has no room for halves: it is rounded to the nearest even number, which its lowest byte holds.
    sums = own.mul_(scales.reciprocal()).add_(1.5 * 2**23 + ZERO_POINT)
    return sums.view(torch.int32).to(torch.uint8), scales


def _scales(x: Tensor) -> Tensor:
    """The scales [N, 1] of rows [N, d] float32; a row of zeros stays one."""
    largest = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_())
    return largest.div_(LARGEST).clamp_min_(torch.finfo(torch.float32).tiny)
