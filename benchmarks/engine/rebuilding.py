"""Expert sets that are seen for the first time: shared blocks against rebuilding a dense model for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from benchmarks import naive
from benchmarks.timing import medians
from mass_serve.engine import Engine, Query
from mass_serve.engine.second_passes import SecondPass
from mass_serve.engine.set_cache import SetCache


def rebuild_times(engine: Engine, queries: Sequence[Query], rounds: int) -> dict[str, float]:
    """20 expert sets of two tasks in one batch, seen for the first time: shared blocks against rebuilding."""
    pairs = list(combinations(range(len(engine.tasks)), 2))[:20]
    expert_sets = [pairs[sample % len(pairs)] for sample in range(len(queries))]
    planned = [SecondPass(sample, expert_set) for sample, expert_set in enumerate(expert_sets)]
    patches = engine._inputs(queries)
    assert isinstance(patches, Tensor)
    embeddings: dict[str, Tensor] = {}

    @torch.inference_mode()
    def shared_blocks() -> None:
        empty = SetCache(engine.bank, engine.set_cache.budget_bytes)
        runner = replace(engine._second_passes, set_cache=empty)
        embeddings["ours"] = runner.run(planned, engine._inputs(queries))

    @torch.inference_mode()
    def rebuilding() -> None:
        embeddings["naive"] = naive.serve(engine.bank, expert_sets, patches)

    times = medians({"first_seen_20_sets": shared_blocks, "naive_20_sets": rebuilding}, rounds)
    agreement = (embeddings["ours"] - embeddings["naive"]).abs().max() / embeddings["naive"].abs().max()
    if agreement > 1e-3:
        raise AssertionError(f"the two ways to serve disagree by {agreement:.1e}")
    return times
