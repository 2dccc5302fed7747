"""Rows of tables whose changes are those of each row's segment: words, positions and types of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.embedding import reference
from mass_serve.kernels.low_rank.deltas import Delta
from mass_serve.kernels.weights import Table

__all__ = ["segmented_added_rows", "segmented_embedding"]


def segmented_embedding(
    ids: Tensor, table: Table, deltas: Sequence[Delta], row_offsets: Sequence[int]
) -> Tensor:
    """The rows y [N, D] of `kernels.embedding.reference`, by the form that fits the device of the table."""
    if isinstance(table, Tensor) and backend_for(table.device) == "fused":
        from mass_serve.kernels.embedding import fused

        return fused.segmented_embedding(ids, table, deltas, row_offsets)
    return reference.segmented_embedding(ids, table, deltas, row_offsets)


def segmented_added_rows(
    x: Tensor, tables: Sequence[Tensor], places: Tensor, row_offsets: Sequence[int]
) -> Tensor:
    """`x + table_i[places]` of `kernels.embedding.reference`, by the form that fits the device of x."""
    if backend_for(x.device) == "fused":
        from mass_serve.kernels.embedding import fused

        return fused.segmented_added_rows(x, tables, places, row_offsets)
    return reference.segmented_added_rows(x, tables, places, row_offsets)
