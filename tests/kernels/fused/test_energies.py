"""The fused energies against their reference and against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import subspace_energies
from mass_serve.kernels.backend import backend
from mass_serve.kernels.energies import reference
from tests.interpreter import DEVICE, INTERPRETED
from tests.kernels.projectors import random_projectors


def _fused(x: Tensor, projectors: Tensor) -> Tensor:
    with backend("fused"):
        return subspace_energies(x.to(DEVICE), projectors.float().to(DEVICE)).cpu()


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
    torch.testing.assert_close(energies, reference.subspace_energies(x, basis.float()), atol=atol, rtol=rtol)


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
