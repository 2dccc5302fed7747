"""Whether a store keeps its merged base, `pretrained + merge(routed tasks)`, which a first pass may run on.

It follows from the blocks alone (`merging.merged_parameter`), so a store may leave it out and it is rebuilt
at load.
"""

from __future__ import annotations

from collections.abc import Sequence

from mass_serve.model_store.format.factoring import Ranks

# Rebuilding costs eigendecompositions of [T R, T R] matrices. Below this sum of their cubes it takes about
# two seconds. ViT-B/32 is above it (2e10, about 15 s), whose 350 MB are read in a fraction of that.
REBUILD_LIMIT = 2e9


def is_slow_to_rebuild(tasks: Sequence[Ranks]) -> bool:
    """Tells whether rebuilding the merged base of tasks with these ranks would take so long at load that it
    had better be stored.
    """
    names = tasks[0] if tasks else ()
    return sum(sum(ranks[name] for ranks in tasks) ** 3 for name in names) > REBUILD_LIMIT
