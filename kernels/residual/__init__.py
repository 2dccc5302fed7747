"""How far a feature lies outside each task's subspace, and how much of a layer's tokens lies within."""

from kernels.residual.reference import subspace_energies, subspace_residuals

__all__ = ["subspace_energies", "subspace_residuals"]
