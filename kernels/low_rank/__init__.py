"""The segmented low-rank linear: one product whose rows carry the expert deltas of their own segment."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mass_serve.kernels import rows
from mass_serve.kernels.activations import Activation
from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.low_rank import reference
from mass_serve.kernels.low_rank.reference import SegmentDelta, TaskBlocks, folded_sides

__all__ = ["SegmentDelta", "TaskBlocks", "folded_sides", "linear", "segmented_linear"]


def segmented_linear(
    x: Tensor,
    weight: Tensor,
    blocks: TaskBlocks | None,
    deltas: Sequence[SegmentDelta],
    row_offsets: Sequence[int],
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """y [N, d_out] of `kernels.low_rank.reference`, by the form that fits the device of x."""
    if backend_for(x.device) == "fused":
        from mass_serve.kernels.low_rank import fused

        return fused.segmented_linear(x, weight, blocks, deltas, row_offsets, activation, residual)
    return reference.segmented_linear(x, weight, blocks, deltas, row_offsets, activation, residual)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """`y = act(x W^T + b) + residual` [N, d_out]: the segmented linear of one base-only segment."""
    if backend_for(x.device) == "fused":
        from mass_serve.kernels.low_rank import fused

        delta = SegmentDelta((), None, bias)
        return fused.segmented_linear(x, weight, None, [delta], (0, len(x)), activation, residual)
    return rows.linear(x, weight, bias, activation, residual)
