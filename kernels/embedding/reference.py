"""Rows of segmented tables in plain PyTorch: the definition, and what runs on a CPU.

For the rows `offsets[i]:offsets[i+1]`, by the type of their change (see `kernels.low_rank.deltas`), with the
blocks of the tasks E_i side by side as U_i and V_i:

    y = W[ids]                                           BaseOnly
    y = W[ids] + (U_t[ids] * s) V_t                      OneTask
    y = W[ids] + ((U_i[ids] L_i) M_i) V_i                SeveralTasks
    y = W[ids] + left_i^T[ids] right_i                   FoldedSides
    y = W_i[ids]                                         MaterialisedWeight

so that a segment's table is `W + U_i C_i V_i`, and only its rows that are asked for are ever formed. What
several tasks add by a core is computed in float32, as in the low-rank linear. ids [N] int64 from 0 to V - 1,
W [V, D], y [N, D] of one floating dtype, but that W may be quantised (see `kernels.quantised`); nothing is
mutated, and there are no biases. Offsets start at 0, rise, and end at N; segments may be empty. A row's bits
depend on its id and its segment's table alone (see `kernels.rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mass_serve.kernels.low_rank.deltas import (
    BaseOnly,
    Delta,
    FoldedSides,
    MaterialisedWeight,
    OneTask,
    SeveralTasks,
    SmallSides,
    TaskBlock,
)
from mass_serve.kernels.packed_rows import PackedRows, numbers_of
from mass_serve.kernels.rows import add_product_, product
from mass_serve.kernels.weights import Table, rows_of


def segmented_embedding(
    ids: Tensor, table: Table, deltas: Sequence[Delta], row_offsets: Sequence[int]
) -> Tensor:
    """The rows y [N, D] of this module's docstring. Raises ValueError for offsets that do not fit."""
    if len(row_offsets) != len(deltas) + 1 or row_offsets[0] != 0 or row_offsets[-1] != len(ids):
        raise ValueError(
            f"{len(deltas)} segments over {len(ids)} rows do not fit offsets {tuple(row_offsets)}"
        )
    y = rows_of(table, ids)
    for delta, (start, stop) in zip(deltas, pairwise(row_offsets), strict=True):
        if start < stop:
            _change_(y[start:stop], ids[start:stop], delta)
    return y


def _change_(y: Tensor, ids: Tensor, delta: Delta) -> None:
    """Makes a segment's rows y [n, D] of the shared table's."""
    match delta:
        case BaseOnly():
            pass
        case MaterialisedWeight(weight=weight):
            y.copy_(weight[ids])
        case FoldedSides(right=right, left=left):
            add_product_(y, left.T[ids], right)
        case OneTask(block=block, singular_values=s):
            add_product_(y, _rows_of(block, ids, y.dtype).mul_(s), numbers_of(block.vh, y.dtype))
        case SeveralTasks():
            _add_several_(y, ids, delta)
        case SmallSides():  # of which a linear's rows are added to, not looked up
            raise TypeError("small sides are those of linears; a table has none")


def _add_several_(y: Tensor, ids: Tensor, delta: SeveralTasks) -> None:
    """`y += ((U[ids] L) M) V`, task by task, so that the shared blocks are read where they lie."""
    rows = [_rows_of(block, ids, torch.float32) for block in delta.blocks]
    mixed = product(product(torch.cat(rows, dim=1), delta.left), delta.right)  # [n, K]
    added = torch.zeros_like(y, dtype=torch.float32)
    parts = mixed.split([block.rank for block in delta.blocks], dim=1)  # type: ignore[no-untyped-call]
    for part, block in zip(parts, delta.blocks, strict=True):
        add_product_(added, part, numbers_of(block.vh, torch.float32))
    y.add_(added)


def _rows_of(block: TaskBlock, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """`U_t[ids]` [n, R], in memory of its own."""
    if isinstance(block.u_t, PackedRows):
        return block.u_t.numbers_at(ids, dtype).T
    return block.u_t[:, ids].T.to(dtype)


def segmented_added_rows(
    x: Tensor, tables: Sequence[Tensor], places: Tensor, row_offsets: Sequence[int]
) -> Tensor:
    """`y = x + table_i[places]` for the rows `offsets[i]:offsets[i+1]`, and `y = x` where a place is -1.

    x and y [N, D], places [N] int64, each table_i [n, D].
    """
    y = x.clone()
    there = (places >= 0).unsqueeze(1)
    chosen = places.clamp_min(0)
    for table, (start, stop) in zip(tables, pairwise(row_offsets), strict=True):
        y[start:stop] += table[chosen[start:stop]] * there[start:stop]
    return y
