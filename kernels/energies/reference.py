"""Shares of energy within task subspaces in plain PyTorch: the definition, and what runs on a CPU.

For the tokens z of one sample and the orthonormal rows P_t [R, D] of task t:

    energy_t = mean over z of |P_t z|^2 / |z|^2

x [B, L, D] of any floating dtype, projectors [T, R, D] float32 -> energies [B, T] float32, each within [0, 1]
but for rounding; a token of zeros counts 0. Nothing is mutated. A sample's bits depend on that sample alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.kernels.rows import product


def subspace_energies(x: Tensor, projectors: Tensor) -> Tensor:
    """The energies [B, T] of this module's docstring."""
    tasks, rank, _ = projectors.shape
    z = x.flatten(0, 1).float()
    coordinates = product(z, projectors.flatten(0, 1).T).square_()
    within = coordinates.view(len(z), tasks, rank).sum(2)
    shares = within / z.square().sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return shares.view(x.shape[0], x.shape[1], tasks).mean(1)
