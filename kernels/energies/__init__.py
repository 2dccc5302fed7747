"""How much of a layer's tokens lies within each task's subspace."""

from __future__ import annotations

from torch import Tensor

from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.energies import reference
from mass_serve.kernels.energies.directions import TaskDirections, widened

__all__ = ["TaskDirections", "subspace_energies", "widened"]


def subspace_energies(x: Tensor, directions: TaskDirections) -> Tensor:
    """The energies of `kernels.energies.reference`, by the form that fits the device of x."""
    if backend_for(x.device) == "fused" and len(x):
        from mass_serve.kernels.energies import fused

        return fused.subspace_energies(x, directions)
    return reference.subspace_energies(x, directions)
