"""Distances to task subspaces in plain PyTorch: the definition, and what runs on a CPU.

For a feature z and the orthonormal rows P_t [R, D] of task t:

    residual_t = || z - P_t^T P_t z ||_2

z [B, D] of any floating dtype, projectors [T, R, D] float32 -> residuals [B, T] float32; nothing is
mutated. It is `sqrt(|z|^2 - |P_t z|^2)`, one product for all tasks, as long as little cancels. Where a
subspace explains nearly all of a feature that would lose the residual, and the difference is formed before
it is squared. A row's bits depend on that row alone.
"""

from __future__ import annotations

from torch import Tensor

from mass_serve.kernels.rows import product

# Of |z|^2. Where more lies within, an error of float32 in |P_t z|^2 is too large a part of what is left.
CANCELLING_SHARE = 0.9


def subspace_residuals(z: Tensor, projectors: Tensor) -> Tensor:
    """The residuals [B, T] of this module's docstring."""
    z, (tasks, rank, _) = z.float(), projectors.shape
    along = product(z, projectors.flatten(0, 1).T).view(len(z), tasks, rank)
    squares, within = z.double().square().sum(1, keepdim=True), along.double().square().sum(2)
    residuals = (squares - within).clamp_min(0).sqrt().float()
    cancelling = ~(within <= CANCELLING_SHARE * squares)
    for task in cancelling.any(0).nonzero().flatten().tolist():
        rows, basis = cancelling[:, task], projectors[task]
        residuals[rows, task] = (z[rows] - product(along[rows, task], basis)).square_().sum(1).sqrt_()
    return residuals
