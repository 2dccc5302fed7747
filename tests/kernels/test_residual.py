"""Residuals against the projector written out in float64."""

from __future__ import annotations

import pytest
import torch

from mass_serve.kernels import subspace_residuals
from tests.kernels.projectors import random_projectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tasks", "rank", "width"), [(1, 1, 7), (8, 16, 128), (20, 38, 768), (3, 64, 64)])
def test_it_is_the_distance_to_each_subspace(tasks: int, rank: int, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(width)
    basis, z = random_projectors(tasks, rank, width), (10 * torch.randn(6, width)).to(dtype)
    projector = torch.eye(width, dtype=torch.float64) - basis.transpose(1, 2) @ basis  # [T, D, D]
    expected = torch.einsum("tij,bj->bti", projector, z.double()).norm(dim=2)
    residuals = subspace_residuals(z, basis.float())
    assert residuals.dtype == torch.float32
    torch.testing.assert_close(residuals.double(), expected, atol=2e-5 * float(z.double().norm()), rtol=1e-5)


def test_a_feature_inside_a_subspace_keeps_a_small_residual() -> None:
    """`|z|^2 - |Pz|^2` in float32 could not tell 1e-4 from 0 here; nor could it come out negative."""
    torch.manual_seed(0)
    basis = random_projectors(1, 32, 128)
    inside = torch.randn(1, 32, dtype=torch.float64) @ basis[0]
    outside = torch.randn(1, 128, dtype=torch.float64)
    outside -= outside @ basis[0].T @ basis[0]
    z = 100 * inside / inside.norm() + 1e-3 * outside / outside.norm()
    assert float(subspace_residuals(z.float(), basis.float())) == pytest.approx(1e-3, rel=0.05)


def test_without_directions_all_of_a_feature_is_left() -> None:
    z = torch.randn(3, 16)
    torch.testing.assert_close(
        subspace_residuals(z, torch.zeros(2, 0, 16)), z.norm(dim=1, keepdim=True).expand(3, 2)
    )


def test_a_sample_has_the_same_bits_in_every_batch() -> None:
    torch.manual_seed(0)
    basis, z = random_projectors(4, 9, 100).float(), torch.randn(33, 100)
    whole = subspace_residuals(z, basis)
    for rows in range(1, 33):
        assert torch.equal(subspace_residuals(z[33 - rows :], basis), whole[33 - rows :])
