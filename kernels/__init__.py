"""Arithmetic on mixed batches: products whose rows belong to segments with different experts.

Each operation has a folder of its own: `reference.py` is plain PyTorch and defines it, `fused.py` is the same
in Triton kernels, and `backend.py` says which of them runs: the fused one on CUDA, the reference elsewhere.
"""

from mass_serve.kernels.layer_norm import segmented_layer_norm
from mass_serve.kernels.low_rank import SegmentDelta, TaskBlocks, folded_sides, linear, segmented_linear
from mass_serve.kernels.positions import segmented_positions
from mass_serve.kernels.residual import subspace_energies, subspace_residuals
from mass_serve.kernels.segments import Segments, group_by_expert_set

__all__ = [
    "SegmentDelta",
    "Segments",
    "TaskBlocks",
    "folded_sides",
    "group_by_expert_set",
    "linear",
    "segmented_layer_norm",
    "segmented_linear",
    "segmented_positions",
    "subspace_energies",
    "subspace_residuals",
]
