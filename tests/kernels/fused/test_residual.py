"""The fused residuals against their reference and against float64."""

from __future__ import annotations

import pytest
import torch

from mass_serve.kernels import subspace_residuals
from mass_serve.kernels.backend import backend
from mass_serve.kernels.residual import reference
from tests.interpreter import DEVICE
from tests.kernels.projectors import random_projectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "tasks", "rank", "width"),
    [(1, 1, 1, 7), (6, 8, 16, 64), (19, 3, 38, 129), (5, 1, 96, 768), (2, 1, 114, 1024), (3, 2, 64, 64)],
)
def test_it_is_the_distance_to_each_subspace(
    batch: int, tasks: int, rank: int, width: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(width)
    basis, z = random_projectors(tasks, rank, width), (10 * torch.randn(batch, width)).to(dtype)
    outside = z.double() - (z.double() @ basis.transpose(1, 2)) @ basis  # [T, B, D]
    with backend("fused"):
        residuals = subspace_residuals(z.to(DEVICE), basis.float().to(DEVICE)).cpu()
    assert residuals.dtype == torch.float32
    atol = 2e-5 * float(z.double().norm())
    torch.testing.assert_close(residuals.double(), outside.norm(dim=2).T, atol=atol, rtol=1e-5)
    expected = reference.subspace_residuals(z, basis.float())
    torch.testing.assert_close(residuals, expected, atol=atol, rtol=1e-5)


def test_a_feature_inside_a_subspace_keeps_a_small_residual() -> None:
    """`|z|^2 - |Pz|^2` in float32 could not tell 1e-3 from 0 here."""
    torch.manual_seed(0)
    basis = random_projectors(1, 32, 128)
    inside = torch.randn(1, 32, dtype=torch.float64) @ basis[0]
    outside = torch.randn(1, 128, dtype=torch.float64)
    outside -= outside @ basis[0].T @ basis[0]
    z = 100 * inside / inside.norm() + 1e-3 * outside / outside.norm()
    with backend("fused"):
        residual = subspace_residuals(z.float().to(DEVICE), basis.float().to(DEVICE))
    assert float(residual) == pytest.approx(1e-3, rel=0.05)


def test_no_features_have_no_residuals() -> None:
    with backend("fused"):
        residuals = subspace_residuals(
            torch.empty(0, 16, device=DEVICE), torch.zeros(3, 2, 16, device=DEVICE)
        )
    assert residuals.shape == (0, 3)


def test_without_directions_all_of_a_feature_is_left() -> None:
    z = torch.randn(3, 16)
    with backend("fused"):
        residuals = subspace_residuals(z.to(DEVICE), torch.zeros(2, 0, 16, device=DEVICE)).cpu()
    torch.testing.assert_close(residuals, z.norm(dim=1, keepdim=True).expand(3, 2))
