"""What `mass_serve.merging` has for other folders."""

from mass_serve.merging.compression_ratio import rank_for
from mass_serve.merging.formats import (
    DenseDelta,
    PackedSingularVectors,
    RoundedVectors,
    TaskChange,
    TaskSingularVectors,
    ThinDelta,
    rounded,
    task_singular_vectors,
)
from mass_serve.merging.methods.tsv_m import (
    core_factors,
    merged_parameter,
)
from mass_serve.merging.task_vectors import task_vector

__all__ = [
    "DenseDelta",
    "PackedSingularVectors",
    "RoundedVectors",
    "TaskChange",
    "TaskSingularVectors",
    "ThinDelta",
    "core_factors",
    "merged_parameter",
    "rank_for",
    "rounded",
    "task_singular_vectors",
    "task_vector",
]
