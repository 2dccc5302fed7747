"""Matrix products whose rows do not depend on how many rows there are, nor on the number of threads.

A sample's answer must have the same bits whatever its batch-mates are, and a matrix library may choose
another inner loop, with another order of summation, for another number of rows, or for the piece of a
matrix that a thread gets. Measured for PyTorch's float32 product on the CPU with 1 to 16 threads: where the
number of columns is a multiple of 16, a row's bits differ only if the row count is no multiple of 8 and a
thread is left with fewer than 16 rows, or, on processors of AMD, if there are fewer than 16 rows and fewer
than 16 columns for each thread. bfloat16 products do not differ, but for tiny ones of some 4,096
multiplications in all, which no encoder of use has. So operands are padded with zeros to such shapes, and a
product that is too small for all threads is computed on fewer. A column's bits do not depend on the columns
beside it either, where their number is a multiple of 64. `tests/kernels/test_rows.py` repeats the
measurement. On processors with AMX that holds for the libraries as `kernels.matrix_libraries`
sets them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.activations import activate_

COLUMN_MULTIPLE = 16
ROW_MULTIPLE = 8
# A matrix with more columns is not padded as a whole, which would copy it: its last columns are.
COPIED_COLUMNS = 512
# A product with at least this many rows for each thread leaves no thread with a short remainder.
ROWS_PER_THREAD = 16
# Rows or columns, whichever are more.
SIZE_PER_THREAD = 16


def padded_column_count(columns: int) -> int:
    """The column count at which a product of `columns` columns is computed."""
    return -(-columns // COLUMN_MULTIPLE) * COLUMN_MULTIPLE


def padded_row_count(rows: int) -> int:
    """The row count at which a product of `rows` rows is computed."""
    if rows % ROW_MULTIPLE == 0 or rows >= ROWS_PER_THREAD * torch.get_num_threads():
        return rows
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE


def is_stable(rows: int, columns: int) -> bool:
    """Tells whether a product of so many rows and columns is computed as it is: most are.

    Else it is padded, or computed on fewer threads.
    """
    threads = torch.get_num_threads()
    return (
        columns % COLUMN_MULTIPLE == 0
        and (rows % ROW_MULTIPLE == 0 or rows >= ROWS_PER_THREAD * threads)
        and max(rows, columns) >= SIZE_PER_THREAD * threads
    )


def add_product_(y: Tensor, x: Tensor, weight_t: Tensor) -> None:
    """`y += x @ weight_t`, in place: y [N, d_out], x [N, d_in], weight_t [d_in, d_out]."""
    if is_stable(x.shape[0], weight_t.shape[1]):
        y.addmm_(x, weight_t)
        return
    if weight_t.shape[1] % COLUMN_MULTIPLE:
        y.add_(product(x, weight_t))
        return
    rows = x.shape[0]
    padding = padded_row_count(rows) - rows
    with _threads_for(rows + padding, weight_t.shape[1]):
        if not padding:
            y.addmm_(x, weight_t)
            return
        # The whole y goes through the padded product: adding it afterwards would round in another place.
        padded = F.pad(y, (0, 0, 0, padding)).addmm_(F.pad(x, (0, 0, 0, padding)), weight_t)
        y.copy_(padded[:rows])


def put_sum_(y: Tensor, start: Tensor, x: Tensor, weight_t: Tensor) -> None:
    """`y = start + x @ weight_t` for start [d_out], in place: the bits of `add_product_` to rows of it."""
    rows, columns = x.shape[0], weight_t.shape[1]
    if is_stable(rows, columns):
        torch.addmm(start, x, weight_t, out=y)
        return
    if columns % COLUMN_MULTIPLE:
        torch.add(start, product(x, weight_t), out=y)
        return
    padding = padded_row_count(rows) - rows
    with _threads_for(rows + padding, columns):
        if padding:
            y.copy_(torch.addmm(start, F.pad(x, (0, 0, 0, padding)), weight_t)[:rows])
        else:
            torch.addmm(start, x, weight_t, out=y)


def put_product_(y: Tensor, x: Tensor, weight_t: Tensor) -> None:
    """`y = x @ weight_t` in place, the bits of `product`, for y [N, d_out] whose rows may lie apart."""
    if is_stable(x.shape[0], weight_t.shape[1]):
        torch.mm(x, weight_t, out=y)
    else:
        y.copy_(product(x, weight_t))


def product(x: Tensor, weight_t: Tensor) -> Tensor:
    """`x @ weight_t` [N, d_out] for x [N, d_in] and weight_t [d_in, d_out]."""
    rows, columns = x.shape[0], weight_t.shape[1]
    if is_stable(rows, columns):
        return x @ weight_t
    if columns > COPIED_COLUMNS and (rest := columns % COLUMN_MULTIPLE):
        parts = weight_t[:, :-rest], weight_t[:, -rest:]
        return torch.cat([product(x, part) for part in parts], dim=1)
    row_padding, column_padding = padded_row_count(rows) - rows, padded_column_count(columns) - columns
    if column_padding:
        weight_t = F.pad(weight_t, (0, column_padding))
    if row_padding:
        x = F.pad(x, (0, 0, 0, row_padding))
    with _threads_for(len(x), weight_t.shape[1]):
        y = x @ weight_t
    return y[:rows, :columns] if row_padding or column_padding else y


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation | None = None,
    skip: Tensor | None = None,
) -> Tensor:
    """`y = act(x W^T + b) + skip` [N, d_out] for x [N, d_in], weight [d_out, d_in] and bias [d_out]."""
    if bias is None:
        y = product(x, weight.T)
    else:
        y = x.new_empty(x.shape[0], weight.shape[0]).copy_(bias)
        add_product_(y, x, weight.T)
    if activation is not None:
        y = activate_(y, activation)
    return y if skip is None else y.add_(skip)


_ALL_THREADS = nullcontext()


def _threads_for(rows: int, columns: int) -> AbstractContextManager[None]:
    """Inside the block no more threads compute than a product of that shape has work for."""
    threads = torch.get_num_threads()
    fewer = max(1, max(rows, columns) // SIZE_PER_THREAD)
    return _ALL_THREADS if fewer >= threads else _fewer_threads(fewer, threads)


@contextmanager
def _fewer_threads(fewer: int, threads: int) -> Iterator[None]:
    torch.set_num_threads(fewer)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
