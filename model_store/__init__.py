"""Fine-tuned models at rest: checkpoints in, a store of task singular vectors on disk out.

Only the pure arithmetic is exported here, because the backbone uses it where torch is all there is.
Everything that touches a disk is imported from its own module: `model_store.store`, `model_store.build`.
"""

from model_store.merging import core_factors, mean_delta, merged_delta, orthogonal_core
from model_store.singular_vectors import TaskSingularVectors, rank_for, task_singular_vectors

__all__ = [
    "TaskSingularVectors",
    "core_factors",
    "mean_delta",
    "merged_delta",
    "orthogonal_core",
    "rank_for",
    "task_singular_vectors",
]
