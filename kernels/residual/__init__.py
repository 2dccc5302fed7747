"""The router's residuals: how far a feature lies outside each task's subspace."""

from kernels.residual.reference import subspace_residuals

__all__ = ["subspace_residuals"]
