"""Segmented products with packed blocks against float64, on the reference."""

from __future__ import annotations

import pytest
import torch

from mass_serve.kernels import Delta, segmented_embedding, segmented_linear
from tests.kernels.segmented import RAGGED_RANKS, TASKS, Case, dense_weight, partly_packed, random_blocks
from tests.kernels.segmented import random_delta as delta_of

TOLERANCES = [(torch.float32, 2e-5, 1e-4), (torch.bfloat16, 8e-2, 3e-2)]
SETS = [(0,), (2,), (1,), (0, 3), (1, 2), (0, 2, 4)]


def _deltas(d_out: int, d_in: int, ranks: tuple[int, ...]) -> list[Delta]:
    blocks = partly_packed(random_blocks(d_out, d_in, ranks, torch.float32))
    return [delta_of(tasks, blocks, torch.float32) for tasks in SETS]


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize("ranks", [(16,) * TASKS, *RAGGED_RANKS])
@pytest.mark.parametrize(("d_out", "d_in"), [(64, 96), (129, 41)])
def test_it_is_the_dense_product_of_each_segment(
    d_out: int, d_in: int, ranks: tuple[int, ...], dtype: torch.dtype, atol: float, rtol: float
) -> None:
    case = Case.random((0, 5, 11, 30, 31, 47, 60, 80), d_out, d_in, ranks, dtype, partly=True)
    y = segmented_linear(case.x, case.weight, case.deltas, case.rows)
    torch.testing.assert_close(y.double(), case.expected(), atol=atol, rtol=rtol)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("ranks", [(12,) * TASKS, RAGGED_RANKS[0]])
def test_a_row_has_the_same_bits_alone_and_in_any_company(threads: int, ranks: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    deltas, weight = _deltas(96, 64, ranks), torch.randn(96, 64)
    x = torch.randn(34 * len(deltas), 64)
    y = segmented_linear(x, weight, deltas, range(0, len(x) + 1, 34))
    for i, delta in enumerate(deltas):
        for rows in (1, 3, 17, 34):
            part = slice(34 * i + 34 - rows, 34 * i + 34)
            assert torch.equal(segmented_linear(x[part], weight, [delta], (0, rows)), y[part])
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [slice(10, 30), slice(0, 7), slice(16, 17)])
def test_output_rows_are_the_rows_of_the_whole_product(rows: slice) -> None:
    torch.manual_seed(2)
    weight, x = torch.randn(31, 17), torch.randn(16, 17)
    for delta in _deltas(31, 17, (4,) * TASKS):
        whole = segmented_linear(x, weight, [delta], (0, 16))
        part = segmented_linear(x, weight[rows], [delta.output_rows(rows)], (0, 16))
        torch.testing.assert_close(part, whole[:, rows])


def test_rows_of_a_table_are_those_of_each_segments_own() -> None:
    torch.manual_seed(3)
    deltas, table, ids = _deltas(31, 17, (4,) * TASKS), torch.randn(31, 17), torch.randint(0, 31, (30,))
    y = segmented_embedding(ids, table, deltas, range(0, 31, 5))
    wanted = [dense_weight(table, delta)[own] for delta, own in zip(deltas, ids.view(-1, 5), strict=True)]
    torch.testing.assert_close(y.double(), torch.cat(wanted), atol=1e-5, rtol=1e-4)
