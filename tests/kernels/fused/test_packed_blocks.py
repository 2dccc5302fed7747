"""The fused products with packed blocks against float64, beside plain ones in one launch."""

from __future__ import annotations

import itertools

import pytest
import torch

from mass_serve.kernels import MaterialisedWeight, segmented_embedding, segmented_linear
from mass_serve.kernels.backend import backend
from tests.interpreter import DEVICE
from tests.kernels.segmented import RAGGED_RANKS, TASKS, Case, dense_weight

# What rounding to the dtype alone costs, with room for the order of summation.
TOLERANCES = [(torch.float32, 2e-5, 1e-4), (torch.float16, 1e-2, 4e-3), (torch.bfloat16, 8e-2, 3e-2)]
ROWS = (0, 5, 11, 30, 31, 47, 60, 80)


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize("ranks", [(16,) * TASKS, *RAGGED_RANKS])
@pytest.mark.parametrize(("d_out", "d_in"), [(64, 96), (129, 257), (33, 40)])
def test_it_is_the_dense_product_of_each_segment(
    d_out: int, d_in: int, ranks: tuple[int, ...], dtype: torch.dtype, atol: float, rtol: float
) -> None:
    case = Case.random(ROWS, d_out, d_in, ranks, dtype, partly=True)
    own = dense_weight(case.weight, case.deltas[3]).to(dtype)
    case.deltas[3] = MaterialisedWeight(own, case.deltas[3].bias)
    moved = case.to(DEVICE)
    with backend("fused"):
        y = segmented_linear(moved.x, moved.weight, moved.deltas, moved.rows)
    torch.testing.assert_close(y.cpu().double(), case.expected(), atol=atol, rtol=rtol)


@pytest.mark.parametrize("rows", [slice(10, 30), slice(0, 7), slice(16, 17)])
def test_output_rows_are_the_rows_of_the_whole_product(rows: slice) -> None:
    case = Case.random(ROWS, 33, 40, 9, torch.float32, partly=True)
    moved = case.to(DEVICE)
    deltas = [delta.output_rows(rows) for delta in moved.deltas]
    with backend("fused"):
        y = segmented_linear(moved.x, moved.weight[rows], deltas, moved.rows)
    torch.testing.assert_close(y.cpu().double(), case.expected()[:, rows], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
def test_rows_of_a_table_are_those_of_each_segments_own(dtype: torch.dtype, atol: float, rtol: float) -> None:
    case = Case.random(ROWS, 41, 70, 12, dtype, partly=True)
    moved, ids = case.to(DEVICE), torch.randint(0, 41, (ROWS[-1],))
    with backend("fused"):
        y = segmented_embedding(ids.to(DEVICE), moved.weight, moved.deltas, moved.rows)
    wanted = [
        dense_weight(case.weight, delta)[ids[start:stop]]
        for delta, (start, stop) in zip(case.deltas, itertools.pairwise(ROWS), strict=True)
    ]
    torch.testing.assert_close(y.cpu().double(), torch.cat(wanted), atol=atol, rtol=rtol)
