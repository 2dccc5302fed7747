"""Thin changes: their singular vectors are those of the product, which is never formed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mass_serve.merging import TaskSingularVectors, ThinDelta


def thin(rows: int, columns: int, rank: int, seed: int = 0) -> ThinDelta:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    return ThinDelta(left, torch.randn(rank, columns, generator=generator, dtype=torch.float64))


def product(vectors: TaskSingularVectors) -> torch.Tensor:
    return (vectors.u * vectors.s) @ vectors.vh


@settings(max_examples=60)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), rank=st.integers(0, 50), seed=st.integers(0, 2**16)
)
def test_is_the_decomposition_of_the_product(rows: int, columns: int, rank: int, seed: int) -> None:
    delta = thin(rows, columns, rank, seed)
    vectors = delta.singular_vectors()
    dense = delta.left @ delta.right
    assert vectors.rank == min(rows, columns, rank)
    largest = max(1.0, float(torch.linalg.matrix_norm(dense)))
    torch.testing.assert_close(product(vectors), dense, atol=1e-13 * largest, rtol=0)
    torch.testing.assert_close(
        vectors.s, torch.linalg.svdvals(dense)[: vectors.rank], atol=1e-13 * largest, rtol=0
    )
    eye = torch.eye(vectors.rank, dtype=torch.float64)
    torch.testing.assert_close(vectors.u.T @ vectors.u, eye, atol=1e-13, rtol=0)
    torch.testing.assert_close(vectors.vh @ vectors.vh.T, eye, atol=1e-13, rtol=0)
    assert delta.norm() == pytest.approx(float(torch.linalg.matrix_norm(dense)), rel=1e-12, abs=1e-12)


def test_the_rank_is_that_of_the_product() -> None:
    """Not of its factors: one that was never trained, or that says a thing twice, changes less."""
    delta = thin(8, 6, 3)
    assert ThinDelta(delta.left, torch.zeros(3, 6)).singular_vectors().rank == 0
    twice = ThinDelta(torch.cat([delta.left, delta.left], 1), torch.cat([delta.right, delta.right]))
    assert twice.singular_vectors().rank == 3
    opposite = ThinDelta(torch.cat([delta.left, -delta.left], 1), torch.cat([delta.right, delta.right]))
    assert opposite.singular_vectors().rank == 0


def test_no_change_is_of_rank_0() -> None:
    none = ThinDelta.none((5, 7))
    vectors = none.singular_vectors()
    assert (none.shape, none.norm(), vectors.rank) == ((5, 7), 0.0, 0)
    assert (vectors.u.shape, vectors.vh.shape) == ((5, 0), (0, 7))
    assert torch.equal(none.dense(), torch.zeros(5, 7))


def test_parts_are_stacked_along_their_rows() -> None:
    parts = [thin(4, 6, 2, 1), ThinDelta.none((3, 6)), thin(5, 6, 1, 2)]
    stacked = ThinDelta.stacked(parts)
    assert (stacked.shape, stacked.left.shape[1]) == ((12, 6), 3)
    expected = torch.cat([part.left.double() @ part.right.double() for part in parts])
    torch.testing.assert_close(stacked.left @ stacked.right, expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize(("left", "right"), [((4, 2), (3, 5)), ((4,), (4, 5)), ((4, 2), (2,))])
def test_sides_that_do_not_fit_are_refused(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"left \[d_out, r\] and right \[r, d_in\] must share r"):
        ThinDelta(torch.ones(left), torch.ones(right))
