"""TSV-M against its definition: polar factors by SVD of the concatenation, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mass_serve.merging import DenseDelta, TaskSingularVectors, task_singular_vectors
from mass_serve.merging.methods.tsv_m import (
    GRAM_CUTOFF,
    core_factors,
    mean_delta,
    merged_delta,
    merged_parameter,
)


def polar(matrix: Tensor) -> Tensor:
    """The polar factor on the range of `matrix`, by SVD: `P Q^T` of `P diag(s) Q^T`."""
    p, s, qh = torch.linalg.svd(matrix, full_matrices=False)
    kept = s**2 > GRAM_CUTOFF * s[0] ** 2
    factor: Tensor = p[:, kept] @ qh[kept]
    return factor


def merged_by_definition(blocks: list[TaskSingularVectors]) -> Tensor:
    if len(blocks) == 1:
        return blocks[0].u.double() @ blocks[0].s.double().diag() @ blocks[0].vh.double()
    u = torch.cat([block.u for block in blocks], dim=1).double()
    vh = torch.cat([block.vh for block in blocks], dim=0).double()
    s = torch.cat([block.s for block in blocks]).double()
    return polar(u) @ s.diag() @ polar(vh)


def random_blocks(seed: int, count: int, shape: tuple[int, int], rank: int) -> list[TaskSingularVectors]:
    generator = torch.Generator().manual_seed(seed)
    return [task_singular_vectors(torch.randn(shape, generator=generator), rank) for _ in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("count", "shape", "rank"), [(1, (24, 32), 5), (2, (24, 32), 5), (4, (96, 32), 8)])
def test_merged_delta_is_the_definition(
    count: int, shape: tuple[int, int], rank: int, dtype: torch.dtype
) -> None:
    blocks = [
        TaskSingularVectors(block.u.to(dtype), block.s, block.vh.to(dtype))
        for block in random_blocks(0, count, shape, rank)
    ]
    torch.testing.assert_close(
        merged_delta(blocks).double(), merged_by_definition(blocks), atol=2e-5, rtol=1e-4
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    count=st.integers(2, 5),
    rank=st.integers(1, 8),
    noise=st.sampled_from([0.0, 1e-3, 1e-1]),
)
def test_near_duplicate_and_identical_tasks_merge_as_defined(
    seed: int, count: int, rank: int, noise: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(24, 16, generator=generator)
    blocks = [
        task_singular_vectors(shared + noise * torch.randn(24, 16, generator=generator), rank)
        for _ in range(count)
    ]
    expected = merged_by_definition(blocks)
    left, right = core_factors(blocks, [range(count)])[0]
    u = torch.cat([block.u for block in blocks], dim=1).double()
    vh = torch.cat([block.vh for block in blocks], dim=0).double()
    torch.testing.assert_close(u @ left @ right @ vh, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(merged_delta(blocks).double(), expected, atol=1e-4, rtol=1e-4)


def test_identical_tasks_keep_the_common_change() -> None:
    """The polar factor of k copies of u is k times `u / sqrt(k)`: the change survives whole."""
    block = random_blocks(3, 1, (24, 32), 6)[0]
    alone = block.u @ block.s.diag() @ block.vh
    torch.testing.assert_close(merged_delta([block] * 3), alone, atol=1e-5, rtol=1e-4)


def test_merging_does_not_depend_on_the_order_of_tasks() -> None:
    blocks = random_blocks(5, 3, (24, 32), 4)
    torch.testing.assert_close(merged_delta(blocks), merged_delta(blocks[::-1]), atol=1e-5, rtol=1e-4)


def test_tasks_do_not_interfere_after_merging() -> None:
    """The merged left factors are orthonormal, which is what TSV-M is for."""
    blocks = random_blocks(7, 3, (64, 64), 8)
    u = torch.cat([block.u for block in blocks], dim=1).double()
    vh = torch.cat([block.vh for block in blocks], dim=0).double()
    s = torch.cat([block.s for block in blocks]).double()
    left, right = core_factors(blocks, [range(len(blocks))])[0]
    merged = u @ left @ right @ vh
    found = torch.linalg.svdvals(merged)[: len(s)]
    torch.testing.assert_close(found, s.sort(descending=True).values, atol=1e-6, rtol=1e-6)


def ragged_blocks(ranks: tuple[int, ...], shape: tuple[int, int] = (40, 32)) -> list[TaskSingularVectors]:
    """Blocks of those ranks, of changes of their own."""
    whole = random_blocks(13, len(ranks), shape, 16)
    pairs = zip(whole, ranks, strict=True)
    return [TaskSingularVectors(one.u[:, :rank], one.s[:rank], one.vh[:rank]) for one, rank in pairs]


@pytest.mark.parametrize("ranks", [(3, 7), (1, 9, 2), (0, 5, 4), (6, 0, 0), (0, 2, 0, 1)])
def test_tasks_of_different_ranks_merge_as_defined(ranks: tuple[int, ...]) -> None:
    blocks = ragged_blocks(ranks)
    expected = merged_by_definition(blocks)
    torch.testing.assert_close(merged_delta(blocks).double(), expected, atol=2e-5, rtol=1e-4)
    left, right = core_factors(blocks, [range(len(blocks))])[0]
    u = torch.cat([block.u for block in blocks], dim=1).double()
    vh = torch.cat([block.vh for block in blocks]).double()
    torch.testing.assert_close(u @ left @ right @ vh, expected, atol=2e-5, rtol=1e-4)


def test_a_task_that_changed_nothing_changes_no_merge() -> None:
    """To the last bit, so that it does not matter whether a matrix was left alone or is not in a set."""
    one, none, other = ragged_blocks((5, 0, 3))
    assert torch.equal(merged_delta([one, none]), merged_delta([one]))
    assert torch.equal(merged_delta([one, none, other]), merged_delta([one, other]))
    nothing = merged_delta([none, none])
    assert torch.equal(nothing, torch.zeros(40, 32))
    (left, right), (with_none, right_with_none) = core_factors([one, none, other], [(0, 2), (0, 1, 2)])
    assert torch.equal(left, with_none)
    assert torch.equal(right, right_with_none)
    assert [factor.shape for factor in core_factors([none], [(0,)])[0]] == [(0, 0), (0, 0)]


def test_mean_delta_is_the_mean_in_float32() -> None:
    deltas = [torch.full((3,), value, dtype=torch.bfloat16) for value in (1.0, 2.0, 6.0)]
    assert torch.equal(mean_delta(deltas), torch.full((3,), 3.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_merged_parameters_are_pretrained_and_the_merge_rounded_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(11)
    matrix, bias = torch.randn(24, 32, generator=generator), torch.randn(24, generator=generator)
    blocks = random_blocks(9, 3, (24, 32), 4)
    deltas = [DenseDelta(torch.randn(24, generator=generator)) for _ in range(3)]
    matrix, bias = matrix.to(dtype), bias.to(dtype)
    expected = (matrix.float() + merged_delta(blocks)).to(dtype)
    assert torch.equal(merged_parameter(matrix, blocks), expected)
    expected = (bias.float() + torch.stack([delta.values for delta in deltas]).mean(0)).to(dtype)
    assert torch.equal(merged_parameter(bias, deltas), expected)


def test_changes_of_one_parameter_are_in_one_format() -> None:
    block = random_blocks(9, 1, (24, 32), 4)[0]
    with pytest.raises(ValueError, match="all be factored or all be dense"):
        merged_parameter(torch.ones(24, 32), [block, DenseDelta(torch.ones(24, 32))])
    with pytest.raises(ValueError, match="at least one task"):
        merged_parameter(torch.ones(24, 32), [])


@pytest.mark.parametrize("merge", [merged_delta, mean_delta])
def test_empty_sets_are_refused(merge: object) -> None:
    with pytest.raises(ValueError, match="at least one task"):
        merge([])  # type: ignore[operator]
