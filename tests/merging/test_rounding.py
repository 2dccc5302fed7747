"""Singular vectors in few bits: how near their product is to what it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import PackedRows
from mass_serve.kernels.packed_rows import Bits
from mass_serve.merging import PackedSingularVectors, TaskSingularVectors, rounded, task_singular_vectors
from mass_serve.merging.formats.rounding import rounded_rows


def _vectors(rank: int = 24) -> TaskSingularVectors:
    torch.manual_seed(0)
    return task_singular_vectors(torch.randn(96, 30) @ torch.randn(30, 80), rank)


def _product(vectors: TaskSingularVectors) -> Tensor:
    return (vectors.u * vectors.s) @ vectors.vh


def _error(vectors: TaskSingularVectors, other: Tensor) -> float:
    return float((_product(vectors) - other).norm() / _product(vectors).norm())


def _packed(vectors: TaskSingularVectors, bits: Bits) -> PackedSingularVectors[PackedRows]:
    of = rounded(vectors, bits)
    return PackedSingularVectors(PackedRows.of(of.u_t, bits), of.s, PackedRows.of(of.vh, bits))


@pytest.mark.parametrize(("bits", "most"), [(8, 0.01), (4, 0.16)])
def test_the_product_is_nearly_what_it_was(bits: Bits, most: float) -> None:
    vectors = _vectors()
    packed = _packed(vectors, bits)
    assert (packed.rank, packed.shape) == (24, (96, 80))
    assert _error(vectors, _product(packed.unpacked())) < most
    assert torch.equal(packed.s, packed.s.sort(descending=True).values)


def test_one_side_makes_up_for_the_error_of_the_other() -> None:
    vectors = _vectors()

    def alone(rows: Tensor) -> Tensor:
        numbers = rounded_rows(rows.double(), 4).double()
        # Of the length that is nearest to the row.
        return numbers * (numbers * rows).sum(1, keepdim=True) / numbers.square().sum(1, keepdim=True)

    each = (alone(vectors.u.T).T * vectors.s) @ alone(vectors.vh)
    assert _error(vectors, _product(_packed(vectors, 4).unpacked())) < 0.98 * _error(vectors, each.float())


def test_a_large_number_is_rather_cut_off_than_all_others_lost() -> None:
    row = torch.full((1, 400), 0.6)
    row[0, 0] = 6.0
    numbers = rounded_rows(row, 3).double()
    cosine = float((numbers * row).sum() / numbers.norm() / row.norm())
    by_the_largest = (row / 6 * 3).round().double()
    assert cosine > float((by_the_largest * row).sum() / by_the_largest.norm() / row.norm())
    assert int(numbers.abs().max()) <= 3


def test_a_cut_of_rounded_vectors_keeps_the_leading_ones() -> None:
    packed = _packed(_vectors(), 4)
    cut, whole = packed.leading(5), packed.unpacked()
    assert torch.equal(cut.unpacked().u, whole.u[:, :5])
    assert torch.equal(cut.unpacked().vh, whole.vh[:5])
    assert packed.leading(99).rank == 24


@pytest.mark.parametrize("shape", [(5, 7), (1, 3), (3, 2)])
def test_of_no_change_and_of_tiny_matrices_every_row_stays_a_direction(shape: tuple[int, int]) -> None:
    rank = min(shape)
    vectors = task_singular_vectors(torch.zeros(shape), rank)
    of = rounded(vectors, 4)
    assert torch.equal(of.s, torch.zeros(rank))
    assert bool(of.u_t.any(1).all())
    assert bool(of.vh.any(1).all())
    assert rounded(task_singular_vectors(torch.randn(shape), 0), 4).u_t.shape == (0, shape[0])


def test_sides_of_different_ranks_are_refused() -> None:
    rows = PackedRows.of(torch.ones(2, 3, dtype=torch.int8), 4)
    with pytest.raises(ValueError, match="must share R"):
        PackedSingularVectors(rows, torch.ones(1), rows)
