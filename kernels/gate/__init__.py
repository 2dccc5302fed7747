"""A gated MLP's hidden layer: one half of what its first linear gives, activated, times the other half."""

from __future__ import annotations

from torch import Tensor

from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.gate import reference

__all__ = ["gate"]


def gate(x: Tensor, activation: Activation) -> Tensor:
    """y [N, M] of `kernels.gate.reference`, by the form that fits the device of x."""
    if backend_for(x.device) == "fused":
        from mass_serve.kernels.gate import fused

        return fused.gate(x, activation)
    return reference.gate(x, activation)
