"""Truncated SVDs against torch.linalg.svd in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mass_serve.merging.compression_ratio import rank_for
from mass_serve.merging.formats.low_rank import TaskSingularVectors, task_singular_vectors


def _matrix(vectors: TaskSingularVectors) -> Tensor:
    """The matrix that the vectors stand for, `u diag(s) vh`."""
    return (vectors.u * vectors.s) @ vectors.vh


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((32, 32), 4), ((96, 32), 10), ((32, 96), 10), ((5, 32), 5), ((17, 2049), 3), ((40, 38), 38)],
)
def test_truncated_svd_is_the_best_approximation(shape: tuple[int, int], rank: int) -> None:
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    vectors = task_singular_vectors(delta, rank)
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ vh[:rank]
    torch.testing.assert_close(vectors.s.double(), s[:rank], atol=1e-9, rtol=1e-5)
    torch.testing.assert_close(_matrix(vectors).double(), best, atol=1e-8, rtol=1e-4)


@settings(max_examples=40)
@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 24),
    true_rank=st.integers(0, 24),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 2**16),
)
def test_sides_are_orthonormal_whatever_the_true_rank(
    rows: int, columns: int, true_rank: int, scale: float, seed: int
) -> None:
    """A change of lower rank than asked, none at all included, gives zeros and orthonormal vectors."""
    generator = torch.Generator().manual_seed(seed)
    inner = min(true_rank, rows, columns)
    delta = (
        scale
        * torch.randn(rows, inner, generator=generator)
        @ torch.randn(inner, columns, generator=generator)
    )
    rank = min(rows, columns)
    vectors = task_singular_vectors(delta, rank)
    eye = torch.eye(rank)
    torch.testing.assert_close(vectors.u.T @ vectors.u, eye, atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors.vh @ vectors.vh.T, eye, atol=1e-5, rtol=0)
    largest = float(delta.abs().max()) if delta.numel() else 0.0
    torch.testing.assert_close(_matrix(vectors), delta, atol=1e-5 * max(largest, 1e-12), rtol=1e-4)


def test_rank_is_the_share_of_the_shorter_side_and_at_least_one() -> None:
    assert rank_for((2304, 768), 1 / 8) == 96
    assert rank_for((50, 768), 1 / 20) == 2
    assert rank_for((4, 4), 0.01) == 1


@pytest.mark.parametrize("rank", [-1, 6])
def test_impossible_ranks_are_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=r"rank must be in 0\.\.5"):
        task_singular_vectors(torch.ones(5, 7), rank)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5)])
def test_nothing_is_kept_at_rank_0(shape: tuple[int, int]) -> None:
    vectors = task_singular_vectors(torch.ones(shape, dtype=torch.bfloat16), 0)
    assert vectors.rank == 0
    assert {vectors.u.dtype, vectors.s.dtype, vectors.vh.dtype} == {torch.float32}
    assert torch.equal(_matrix(vectors), torch.zeros(shape))


def test_the_leading_triplets_are_all_where_there_are_fewer() -> None:
    vectors = task_singular_vectors(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), 3)
    two = vectors.leading(2)
    assert (two.u.shape, two.vh.shape, two.s.tolist()) == ((5, 2), (2, 7), vectors.s[:2].tolist())
    assert vectors.leading(4).rank == 3


def test_blocks_that_do_not_share_a_rank_are_refused() -> None:
    with pytest.raises(ValueError, match="must share R"):
        TaskSingularVectors(torch.ones(4, 2), torch.ones(3), torch.ones(3, 4))
