"""A batch's tokens: class token, registers and positions of each sample's segment added to its patches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.positions import reference

__all__ = ["segmented_positions"]


def segmented_positions(
    patches: Tensor,
    class_tokens: Sequence[Tensor] | None,
    positions: Sequence[Tensor],
    segment_offsets: Sequence[int],
) -> Tensor:
    """Tokens [B, L, D] of `kernels.positions.reference`, by the form that fits the device of the patches."""
    if backend_for(patches.device) == "fused":
        from mass_serve.kernels.positions import fused

        return fused.segmented_positions(patches, class_tokens, positions, segment_offsets)
    return reference.segmented_positions(patches, class_tokens, positions, segment_offsets)
