"""Many task vectors made into less, in pure PyTorch.

`formats` says how the change of one task is kept, `methods` (one file a paper) how those of several become
one.
"""

from mass_serve.merging.formats.low_rank import TaskSingularVectors, rank_for, task_singular_vectors
from mass_serve.merging.methods.tsv_m import core_factors, mean_delta, merged_delta, orthogonal_core

__all__ = [
    "TaskSingularVectors",
    "core_factors",
    "mean_delta",
    "merged_delta",
    "orthogonal_core",
    "rank_for",
    "task_singular_vectors",
]
