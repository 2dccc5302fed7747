"""The fused energies against their reference and against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import TaskDirections, subspace_energies
from mass_serve.kernels.backend import backend
from mass_serve.kernels.energies import reference
from tests.interpreter import DEVICE, INTERPRETED
from tests.kernels.projectors import random_projectors


def _directions(projectors: Tensor, dtype: torch.dtype = torch.float32) -> TaskDirections:
    return TaskDirections.of(list(projectors.float().to(DEVICE)), dtype=dtype)


def _fused(x: Tensor, projectors: Tensor) -> Tensor:
    with backend("fused"):
        return subspace_energies(x.to(DEVICE), _directions(projectors)).cpu()


@pytest.mark.parametrize(
    ("dtype", "atol", "rtol"), [(torch.float32, 1e-6, 1e-5), (torch.bfloat16, 1e-6, 1e-5)]
)
@pytest.mark.parametrize(
    ("samples", "tokens", "tasks", "rank", "width"),
    [(1, 1, 1, 1, 7), (3, 17, 4, 16, 64), (2, 33, 3, 38, 129), (1, 5, 2, 96, 768), (2, 1, 1, 38, 2049)],
)
def test_it_is_the_mean_share_within_each_subspace(
    samples: int, tokens: int, tasks: int, rank: int, width: int, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    torch.manual_seed(width)
    basis, x = random_projectors(tasks, rank, width), (10 * torch.randn(samples, tokens, width)).to(dtype)
    within = (x.double()[:, None] @ basis.transpose(1, 2)).square().sum(3)  # [B, T, L]
    wanted = (within / x.double().square().sum(2)[:, None]).mean(2)
    energies = _fused(x, basis)
    assert energies.dtype == torch.float32
    torch.testing.assert_close(energies.double(), wanted, atol=atol, rtol=rtol)
    wanted = reference.subspace_energies(x, TaskDirections.of(list(basis.float())))
    torch.testing.assert_close(energies, wanted, atol=atol, rtol=rtol)


def test_every_third_token_is_read_where_it_lies() -> None:
    torch.manual_seed(0)
    basis, x = random_projectors(3, 5, 48), torch.randn(4, 17, 48)
    assert torch.equal(_fused(x[:, ::3], basis), _fused(x[:, ::3].contiguous(), basis))


def test_what_lies_within_counts_one_and_zeros_count_zero() -> None:
    torch.manual_seed(0)
    basis = random_projectors(2, 8, 40)
    inside = torch.randn(2, 6, 8, dtype=torch.float64) @ basis[1]
    inside[1] = 0
    energies = _fused(inside.float(), basis)
    assert energies[0, 1] == pytest.approx(1.0, abs=1e-5)
    assert energies[0, 0] < 0.9
    assert energies[1].eq(0).all()


@pytest.mark.skipif(INTERPRETED, reason="in NumPy's products a row's bits depend on its place in the tile")
def test_a_sample_has_the_same_bits_in_every_batch() -> None:
    torch.manual_seed(0)
    basis, x = random_projectors(4, 38, 768), torch.randn(9, 66, 768).bfloat16()
    together = _fused(x, basis)
    for sample in range(9):
        assert torch.equal(_fused(x[sample : sample + 1], basis)[0], together[sample])


def test_no_samples_have_no_energies() -> None:
    assert _fused(torch.empty(0, 3, 16), torch.zeros(3, 2, 16)).shape == (0, 3)


def test_without_directions_there_is_no_energy() -> None:
    assert torch.equal(_fused(torch.randn(3, 5, 16), torch.zeros(2, 0, 16)), torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("tokens", "rank", "width"), [(1, 1, 7), (17, 16, 64), (33, 38, 129), (5, 96, 768), (1, 38, 2049)]
)
def test_bfloat16_is_measured_by_two_parts_of_each_direction(tokens: int, rank: int, width: int) -> None:
    torch.manual_seed(width)
    basis, x = random_projectors(3, rank, width), (10 * torch.randn(2, tokens, width)).bfloat16()
    within = (x.double()[:, None] @ basis.transpose(1, 2)).square().sum(3)  # [B, T, L]
    wanted = (within / x.double().square().sum(2)[:, None]).mean(2)
    directions = _directions(basis, torch.bfloat16)
    with backend("fused"):
        energies = subspace_energies(x.to(DEVICE), directions)
    torch.testing.assert_close(energies.cpu().double(), wanted, atol=1e-6, rtol=2e-5)
    torch.testing.assert_close(energies, reference.subspace_energies(x.to(DEVICE), directions))
    one_part = reference.subspace_energies(x.to(DEVICE), _directions(basis.bfloat16())).cpu().double()
    far = (one_part - wanted).abs().max()
    assert far > 20 * (energies.cpu().double() - wanted).abs().max(), "the low parts count"


def test_two_parts_of_bfloat16_measure_nothing_else() -> None:
    directions = _directions(random_projectors(2, 3, 16), torch.bfloat16)
    with backend("fused"), pytest.raises(ValueError, match=r"measure bfloat16, and x is torch\.float32"):
        subspace_energies(torch.randn(1, 2, 16, device=DEVICE), directions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tasks_of_any_rank_have_their_profiles(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ranks, x = (5, 0, 38, 16, 70), torch.randn(2, 9, 96)
    rows = [random_projectors(1, rank, 96)[0].float().to(DEVICE) for rank in ranks]
    weights = [torch.rand(rank, device=DEVICE) for rank in ranks]
    directions = TaskDirections.of(rows, weights, dtype)
    x = x.bfloat16() if directions.in_parts else x
    with backend("fused"):
        found = subspace_energies(x.to(DEVICE), directions)
    wanted = reference.subspace_energies(x.to(DEVICE), directions)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
