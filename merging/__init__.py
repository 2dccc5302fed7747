"""Makes many task vectors into less, in pure PyTorch.

    vectors = [task_singular_vectors(task_vector(pretrained, finetuned), rank) for finetuned in models]
    merged = merged_parameter(pretrained, vectors)  # TSV-M of one parameter

`formats` says how the change of one task is kept, `methods` (one file a paper) how those of several become
one.
"""

from mass_serve.merging.formats import (
    DenseDelta,
    PackedSingularVectors,
    RoundedVectors,
    TaskChange,
    TaskSingularVectors,
    ThinDelta,
    rank_for,
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
