"""Whether a store keeps its merged base, `pretrained + merge(all tasks)`, which the first pass may run on.

It follows from the blocks alone (`merging.merged_parameter`), so a store may leave it out and it is rebuilt
at load.
"""

from __future__ import annotations

from mass_serve.model_store.format.experts import ExpertLayout

# Rebuilding costs eigendecompositions of [T R, T R] matrices. Below this sum of their cubes it takes about
# two seconds. ViT-B/32 is above it (2e10, about 15 s), whose 350 MB are read in a fraction of that.
REBUILD_LIMIT = 2e9


def is_slow_to_rebuild(layout: ExpertLayout, num_tasks: int) -> bool:
    """Tells whether rebuilding the merged base at load would take so long that it had better be stored."""
    return sum((num_tasks * rank) ** 3 for rank in layout.ranks().values()) > REBUILD_LIMIT
