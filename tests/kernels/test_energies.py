"""Energies against the projection written out in float64."""

from __future__ import annotations

import pytest
import torch

from mass_serve.kernels import subspace_energies
from tests.kernels.projectors import random_projectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "tasks", "rank", "width"), [(1, 1, 1, 7), (17, 8, 16, 128), (5, 20, 38, 768), (2, 2, 38, 2049)]
)
def test_it_is_the_mean_share_within_each_subspace(
    tokens: int, tasks: int, rank: int, width: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(width)
    basis, x = random_projectors(tasks, rank, width), (10 * torch.randn(3, tokens, width)).to(dtype)
    within = (x.double()[:, None] @ basis.transpose(1, 2)).square().sum(3)  # [B, T, L]
    expected = (within / x.double().square().sum(2)[:, None]).mean(2)
    energies = subspace_energies(x, basis.float())
    assert energies.dtype == torch.float32
    torch.testing.assert_close(energies.double(), expected, atol=1e-6, rtol=1e-5)


def test_without_directions_there_is_no_energy() -> None:
    assert torch.equal(subspace_energies(torch.randn(3, 5, 16), torch.zeros(2, 0, 16)), torch.zeros(3, 2))


def test_a_sample_has_the_same_bits_in_every_batch() -> None:
    torch.manual_seed(0)
    basis, x = random_projectors(4, 9, 100).float(), torch.randn(19, 7, 100)
    whole = subspace_energies(x, basis)
    for samples in range(1, 19):
        assert torch.equal(subspace_energies(x[19 - samples :], basis), whole[19 - samples :])
