"""How far a feature lies outside each task's subspace, and how much of a layer's tokens lies within."""

from __future__ import annotations

from torch import Tensor

from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.residual import reference
from mass_serve.kernels.residual.reference import subspace_energies

__all__ = ["subspace_energies", "subspace_residuals"]


def subspace_residuals(z: Tensor, projectors: Tensor) -> Tensor:
    """The residuals [B, T] of `kernels.residual.reference`, by the form that fits the device of z."""
    if backend_for(z.device) == "fused" and len(z):
        from mass_serve.kernels.residual import fused

        return fused.subspace_residuals(z, projectors)
    return reference.subspace_residuals(z, projectors)
