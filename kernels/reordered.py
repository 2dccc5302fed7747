"""Weights of a linear in the order in which oneDNN's products read them, and else make anew in every call.

    y = x W^T + bias + added

Measured on one thread of a processor with AVX512, [N, 768] by [768, 3072]: float32 products take 0.82 of the
time of plain ones for N = 400 and 0.70 for N = 50, those of bfloat16 0.89 and 0.76. A row's bits depend on
neither the number of rows, from 8 on, nor that of threads: `tests/kernels/test_reordered.py` measures that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.kernels.bfloat16 import multiplies_bfloat16

LEAST_ROWS = 8  # one is summed in another order, and a few more are no slower as eight


@dataclass(frozen=True, eq=False)
class ReorderedWeight:
    """A weight W [d_out, d_in], or some of its output rows."""

    ordered: Tensor  # the whole weight, as oneDNN has it
    rows: range | None = None  # neighbours; None: all of them
    # Neighbours that are also in an order of their own, as they are multiplied without the other rows.
    apart: Mapping[range, ReorderedWeight] = field(default_factory=dict)

    @classmethod
    def of(cls, weight: Tensor, apart: Iterable[slice] = ()) -> ReorderedWeight:
        """Reorders a weight of any number of rows.

        The rows `apart` are copied: products with them alone do not read the others.
        """
        ordered = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        whole = range(len(weight))
        return cls(ordered, apart={whole[rows]: cls.of(weight[rows]) for rows in apart})

    @property
    def shape(self) -> torch.Size:
        """[d_out, d_in]"""
        shape = self.ordered.shape
        return shape if self.rows is None else torch.Size((len(self.rows), shape[1]))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weight, and of what is multiplied by it."""
        return self.ordered.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weight."""
        return self.ordered.device

    @property
    def nbytes(self) -> int:
        """The memory of the whole weight, and of the rows that lie apart."""
        return self.ordered.nbytes + sum(own.nbytes for own in self.apart.values())

    def __getitem__(self, rows: slice) -> ReorderedWeight:
        """The weight of some output rows.

        Products with it cost as much as those with the whole, unless they lie apart.
        """
        if rows == slice(None) and self.rows is None:  # as most products ask for
            return self
        chosen = self._rows[rows]
        if chosen == self._rows:
            return self
        return self.apart.get(chosen) or replace(self, rows=chosen)

    def widened(self) -> Tensor:
        """W [d_out, d_in] as a plain tensor, in memory of its own."""
        return self.ordered.to_dense()[self._rows.start : self._rows.stop]

    def product(self, x: Tensor, bias: Tensor | None = None, added: Tensor | None = None) -> Tensor:
        """`x W^T + bias + added` [N, d_out] for x [N, d_in], bias [d_out] and added [N, d_out]."""
        if added is not None and x.dtype == torch.float32:
            # The same bits, up to a tenth sooner than within the product, which begins with a copy of it.
            return self.product(x, bias).add_(added)
        missing = max(0, LEAST_ROWS - x.shape[0])
        if missing or self.rows is not None:
            return self._padded_product(x, bias, added, missing)
        y: Tensor
        if added is None:
            y = torch.ops.mkldnn._linear_pointwise(x, self.ordered, bias, "none", [], "")
        else:  # bfloat16 would be rounded twice
            y = torch.ops.mkldnn._linear_pointwise.binary(x, added, self.ordered, bias, "add")
        return y

    def _padded_product(self, x: Tensor, bias: Tensor | None, added: Tensor | None, missing: int) -> Tensor:
        """The product of these output rows by that of all, and with so many rows of x more."""
        before, behind = self._rows.start, len(self.ordered) - self._rows.stop
        x = F.pad(x, (0, 0, 0, missing))
        bias = None if bias is None else F.pad(bias, (before, behind))
        added = None if added is None else F.pad(added, (before, behind, 0, missing))
        y = ReorderedWeight(self.ordered).product(x, bias, added)
        return y[: len(y) - missing, before : len(self.ordered) - behind].contiguous()

    @property
    def _rows(self) -> range:
        return range(self.ordered.shape[0]) if self.rows is None else self.rows


def gains_by_reordering(device: torch.device, dtype: torch.dtype) -> bool:
    """Tells whether products with reordered weights are faster there, and as stable as measured.

    That was measured on processors with AVX512 and no AMX; where there is AMX, oneDNN does without it
    (`kernels.matrix_libraries`).
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not torch.cpu.get_capabilities().get("avx512_f", False):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and multiplies_bfloat16(device))
