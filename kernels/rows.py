"""Matrix products whose rows do not depend on how many rows there are.

A sample's answer must have the same bits whatever its batch-mates are, and a matrix library may choose
another inner loop, with another order of summation, when a thread is left with very few rows. Measured
for PyTorch's float32 product on the CPU with 1 to 16 threads: a row's bits differ only where the row
count is no multiple of 4 and at most 27; bfloat16 products never differ. So short products are padded
to a multiple of 8 rows. `tests/kernels/test_rows.py` repeats the measurement.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROW_MULTIPLE = 8
# A product with at least this many rows for each thread leaves no thread with a short remainder.
ROWS_PER_THREAD = 16


def padded_row_count(rows: int) -> int:
    """The row count at which a product of `rows` rows is computed."""
    if rows % ROW_MULTIPLE == 0 or rows >= ROWS_PER_THREAD * torch.get_num_threads():
        return rows
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE


def add_product_(y: Tensor, x: Tensor, weight_t: Tensor) -> None:
    """`y += x @ weight_t`, in place: y [N, d_out], x [N, d_in], weight_t [d_in, d_out]."""
    if weight_t.shape[1] == 1:
        # One column is added up as a vector, in an order that depends on the row count where y is not zero.
        y.add_(product(x, weight_t))
        return
    rows = x.shape[0]
    padding = padded_row_count(rows) - rows
    if not padding:
        y.addmm_(x, weight_t)
        return
    # The whole y goes through the padded product: adding it afterwards would round in another place.
    padded = F.pad(y, (0, 0, 0, padding)).addmm_(F.pad(x, (0, 0, 0, padding)), weight_t)
    y.copy_(padded[:rows])


def product(x: Tensor, weight_t: Tensor) -> Tensor:
    """`x @ weight_t` [N, d_out] for x [N, d_in] and weight_t [d_in, d_out]."""
    rows = x.shape[0]
    padding = padded_row_count(rows) - rows
    return x @ weight_t if not padding else (F.pad(x, (0, 0, 0, padding)) @ weight_t)[:rows]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`y = x W^T + b` [N, d_out] for x [N, d_in], weight [d_out, d_in] and bias [d_out]."""
    if bias is None:
        return product(x, weight.T)
    y = x.new_empty(x.shape[0], weight.shape[0]).copy_(bias)
    add_product_(y, x, weight.T)
    return y
