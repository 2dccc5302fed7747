"""Changes scaled and summed, in both formats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mass_serve.merging import DenseDelta, TaskSingularVectors, task_singular_vectors
from mass_serve.merging.methods.atlas import scaled_change

COEFFICIENTS = [0.5, -1.25]


def deltas(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for _ in COEFFICIENTS]


def test_a_matrix_keeps_the_largest_part_of_the_sum() -> None:
    changes = [task_singular_vectors(delta, 3) for delta in deltas(12, 20)]
    kept = scaled_change(changes, COEFFICIENTS, 4)
    assert isinstance(kept, TaskSingularVectors)
    parts = [c * (one.u * one.s) @ one.vh for one, c in zip(changes, COEFFICIENTS, strict=True)]
    whole = task_singular_vectors(parts[0] + parts[1], 4)
    torch.testing.assert_close((kept.u * kept.s) @ kept.vh, (whole.u * whole.s) @ whole.vh)
    all_of_it = scaled_change(changes, COEFFICIENTS, 6)
    assert isinstance(all_of_it, TaskSingularVectors)
    torch.testing.assert_close((all_of_it.u * all_of_it.s) @ all_of_it.vh, parts[0] + parts[1])


def test_what_is_not_factored_is_summed() -> None:
    one, other = deltas(7)
    found = scaled_change([DenseDelta(one), DenseDelta(other)], COEFFICIENTS, 0)
    assert isinstance(found, DenseDelta)
    torch.testing.assert_close(found.values, 0.5 * one - 1.25 * other)


def test_blocks_of_16_bits_and_of_rank_0_are_taken() -> None:
    small, large = (
        task_singular_vectors(delta, rank) for delta, rank in zip(deltas(6, 9), (0, 2), strict=True)
    )
    narrow = TaskSingularVectors(large.u.bfloat16(), large.s, large.vh.bfloat16())
    found = scaled_change([small, narrow], COEFFICIENTS, 2)
    assert isinstance(found, TaskSingularVectors)
    expected = -1.25 * (narrow.u.float() * narrow.s) @ narrow.vh.float()
    torch.testing.assert_close((found.u * found.s) @ found.vh, expected)


def test_a_sum_that_is_zero_has_the_rank_that_was_asked_for() -> None:
    change = task_singular_vectors(deltas(6, 9)[0], 3)
    found = scaled_change([change, change], [1.0, -1.0], 3)
    assert isinstance(found, TaskSingularVectors)
    assert found.rank == 3
    torch.testing.assert_close((found.u * found.s) @ found.vh, torch.zeros(6, 9), atol=1e-6, rtol=0)


def test_no_change_and_two_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        scaled_change([], [], 1)
    matrix, *_ = deltas(6, 9)
    with pytest.raises(ValueError, match="all be factored or all be dense"):
        scaled_change([task_singular_vectors(matrix, 2), DenseDelta(matrix)], COEFFICIENTS, 2)
