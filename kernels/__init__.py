"""Arithmetic on mixed batches: products whose rows belong to segments with different experts.

Each operation has a folder of its own whose `reference.py` is plain PyTorch and defines it.
"""

from kernels.low_rank import SegmentDelta, TaskBlocks, segmented_linear
from kernels.residual import subspace_energies, subspace_residuals
from kernels.rows import linear
from kernels.segments import Segments, group_by_expert_set

__all__ = [
    "SegmentDelta",
    "Segments",
    "TaskBlocks",
    "group_by_expert_set",
    "linear",
    "segmented_linear",
    "subspace_energies",
    "subspace_residuals",
]
