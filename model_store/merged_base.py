"""The merged base: `pretrained + merge(all tasks)` (arXiv:2412.00081), which the first pass runs on.

It follows from the blocks alone, so a store may leave it out and the server rebuilds it at load.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mass_serve.merging.formats.low_rank import TaskSingularVectors
from mass_serve.merging.methods.tsv_m import mean_delta, merged_delta
from mass_serve.model_store.format.experts import ExpertLayout, Experts

# Rebuilding costs eigendecompositions of [T R, T R] matrices. Below this sum of their cubes it takes less
# than about half a minute on two cores (ViT-B/32: 2e10, about 20 s); ViT-L is above it (1e11).
REBUILD_LIMIT = 5e10


def merged_parameter(name: str, pretrained: Tensor, experts: Sequence[Experts]) -> Tensor:
    """One parameter of the merged base, computed in float32 or better, in the pretrained dtype."""
    changes = [expert.change(name) for expert in experts]
    blocks = [change for change in changes if isinstance(change, TaskSingularVectors)]
    deltas = [change for change in changes if isinstance(change, Tensor)]
    merged = merged_delta(blocks) if blocks else mean_delta(deltas)
    return (pretrained.float() + merged).to(pretrained.dtype)


def is_slow_to_rebuild(layout: ExpertLayout, num_tasks: int) -> bool:
    """Whether rebuilding the merged base at load would take so long that it had better be stored."""
    return sum((num_tasks * rank) ** 3 for rank in layout.ranks().values()) > REBUILD_LIMIT
