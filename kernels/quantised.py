"""Weights of a linear in one byte each, and products with them in whole numbers.

    W ~ diag(s) C,   s_j = max |W_j| / 127,   C = round(diag(s)^-1 W)
    x ~ diag(r) Q,   r_i = max |x_i| / 127,   Q = round(diag(r)^-1 x)
    x W^T ~ diag(r) (Q C^T) diag(s)

for the rows W_j, which are output channels, and the rows x_i, which are tokens. Weights are quantised once,
and rows in every product, each by itself. Sums of whole numbers are exact in any order, so a row's bits
depend on no other row, and neither on the number of rows nor on that of threads: nothing is padded here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mass_serve.kernels.activations import Activation, activate_

LARGEST = 127  # of 8 bits, and the same on both sides of 0
# What a product reads and writes for so many rows stays in the cache.
ROWS_AT_ONCE = 512
# Sums of so many products of two such numbers are below 2^24, to which float32 counts exactly.
EXACT_COLUMNS = 1024


@dataclass(frozen=True, eq=False)
class QuantisedWeight:
    """A weight W [d_out, d_in], or a table of as many rows, in whole numbers of 8 bits."""

    codes: Tensor  # C, int8 [d_out, d_in]
    scales: Tensor  # s, float32 [d_out]
    dtype: torch.dtype  # of what is multiplied by it, and of what it is widened to

    @classmethod
    def of(cls, weight: Tensor, dtype: torch.dtype) -> QuantisedWeight:
        """Quantises a weight of any floating dtype."""
        codes, scales = _quantised(weight.float())
        return cls(codes, scales.flatten(), dtype)

    @property
    def shape(self) -> torch.Size:
        """[d_out, d_in]"""
        return self.codes.shape

    @property
    def device(self) -> torch.device:
        """The device of the numbers."""
        return self.codes.device

    @property
    def nbytes(self) -> int:
        """The memory of the numbers and their scales."""
        return self.codes.nbytes + self.scales.nbytes

    def __getitem__(self, rows: slice | Tensor) -> QuantisedWeight:
        """The weight of some output rows: a view for a slice, a copy for numbers [n] int64."""
        return replace(self, codes=self.codes[rows], scales=self.scales[rows])

    def widened(self) -> Tensor:
        """`diag(s) C` [d_out, d_in] in `dtype`, in memory of its own."""
        return self.codes.float().mul_(self.scales.unsqueeze(1)).to(self.dtype)


def add_quantised_product_(
    y: Tensor, x: Tensor, weight: QuantisedWeight, activation: Activation | None = None
) -> None:
    """`y = act(y + x W^T)`, in place: y [N, d_out] and x [N, d_in] of one floating dtype.

    Everything between the whole numbers and y is computed in float32, and rounded once.
    """
    for start in range(0, len(x), ROWS_AT_ONCE):
        own_y, own_x = y[start : start + ROWS_AT_ONCE], x[start : start + ROWS_AT_ONCE]
        codes, scales = _quantised(own_x.float())
        sums = exact_product(codes, weight.codes).float()
        sums.mul_(scales).mul_(weight.scales).add_(own_y.float())
        own_y.copy_(sums if activation is None else activate_(sums, activation))


def exact_product(codes: Tensor, weight: Tensor) -> Tensor:
    """`Q C^T` [N, d_out] int32 of int8 numbers [N, d_in] and [d_out, d_in], none of which is -128."""
    if multiplies_int8():
        return torch._int_mm(codes, weight.T)
    sums = torch.zeros(len(codes), len(weight), dtype=torch.int32)
    for start in range(0, codes.shape[1], EXACT_COLUMNS):
        columns = slice(start, start + EXACT_COLUMNS)
        sums += (codes[:, columns].float() @ weight[:, columns].float().T).int()
    return sums


def multiplies_int8() -> bool:
    """Tells whether the processor sums products of int8 in 32 bits; elsewhere oneDNN's overflow 16 bits."""
    return bool(torch.cpu.get_capabilities().get("avx512_vnni", False))


def _quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """The codes [N, d] int8 and scales [N, 1] float32 of rows [N, d] float32; a row of zeros stays one."""
    scales = (x.abs().amax(1, keepdim=True) / LARGEST).clamp_min_(torch.finfo(torch.float32).tiny)
    return (x / scales).round_().to(torch.int8), scales
