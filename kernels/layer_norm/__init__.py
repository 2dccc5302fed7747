"""LayerNorm whose weight and bias are those of each row's segment."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.layer_norm import reference

__all__ = ["segmented_layer_norm"]


def segmented_layer_norm(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], row_offsets: Sequence[int], eps: float
) -> Tensor:
    """y [N, D] of `kernels.layer_norm.reference`, by the form that fits the device of x."""
    if backend_for(x.device) == "fused":
        from mass_serve.kernels.layer_norm import fused

        return fused.segmented_layer_norm(x, weights, biases, row_offsets, eps)
    return reference.segmented_layer_norm(x, weights, biases, row_offsets, eps)
