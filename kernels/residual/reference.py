"""Distances to task subspaces and shares within them: the definition, and what runs on a CPU.

For a feature z and the orthonormal rows P_t [R, D] of task t:

    residual_t = || z - P_t^T P_t z ||_2

z [B, D] of any floating dtype, projectors [T, R, D] float32 -> residuals [B, T] float32; nothing is
mutated. The difference is formed before it is squared: `|z|^2 - |P_t z|^2` would lose a small residual
to cancellation. A row's bits depend on that row alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.kernels.rows import product


def subspace_residuals(z: Tensor, projectors: Tensor) -> Tensor:
    """The residuals [B, T] of this module's docstring."""
    z = z.float()
    residuals = [(z - product(product(z, basis.T), basis)).square_().sum(1).sqrt_() for basis in projectors]
    return torch.stack(residuals, dim=1)


def subspace_energies(x: Tensor, projectors: Tensor) -> Tensor:
    """The share of its tokens' energy that lies in each subspace: mean over tokens of `|P_t z|^2 / |z|^2`.

    x [B, L, D] of any floating dtype, projectors as above -> [B, T] float32, each within [0, 1] but for
    rounding; nothing is mutated. A sample's bits depend on that sample alone.
    """
    tasks, rank, _ = projectors.shape
    z = x.flatten(0, 1).float()
    coordinates = product(z, projectors.flatten(0, 1).T).square_()
    within = coordinates.view(len(z), tasks, rank).sum(2)
    shares = within / z.square().sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return shares.view(x.shape[0], x.shape[1], tasks).mean(1)
