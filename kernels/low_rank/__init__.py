"""The segmented low-rank linear: one product whose rows carry the expert deltas of their own segment."""

from kernels.low_rank.reference import SegmentDelta, TaskBlocks, segmented_linear

__all__ = ["SegmentDelta", "TaskBlocks", "segmented_linear"]
