"""What a thinner first pass saves, at the sizes of CLIP ViT-B/32, as ratios within one run.

    python -m benchmarks.thin_first_pass_times [--json FILE] [--tasks N ...] [--rounds N]

The tasks are random, at rank 1/T of every matrix, with blocks in 16 bits: what is in them takes no time. An
image gets a whole first pass, is routed, and gets a second pass with one task's weights, tasks mixed, as most
images in `exact` and `balanced` do. Times are the least processor seconds of one thread over rounds in which
all variants take turns, over those of our dense pass in the same dtype.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.random_models import VIT_B_32
from benchmarks.random_stores import random_store
from benchmarks.timing import minima
from mass_serve.backbone import Batch, DenseWeights, passes_for, run
from mass_serve.engine.evidence_search import EvidenceSearch
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.stages import StageClock

TASKS = (8, 20)
DTYPES = (torch.float32, torch.bfloat16)
IMAGES = 8
SHARES = (1.0, 0.5, 0.25)
CPU = torch.device("cpu")


def variants(loaded: LoadedStore) -> dict[str, Callable[[], object]]:
    """The dense pass, both passes by how many tokens have MLPs of their own, and first passes alone."""
    passes, tasks = passes_for(loaded.bank, loaded.first_pass, 1), len(loaded.heads)
    embedding, like = loaded.architecture.patches, loaded.bank.like
    count = embedding.num_tokens - embedding.tokens_before_patches
    patches = torch.randn(IMAGES, count, embedding.patch_width).to(like.dtype)
    sets = [loaded.bank.expert_set((sample % tasks,), materialised=False) for sample in range(IMAGES)]
    every, dense = torch.ones(IMAGES, tasks, dtype=torch.bool), DenseWeights(loaded.pretrained)

    def first(search: EvidenceSearch, inputs: Batch) -> object:
        return search.search(range(IMAGES), inputs, every, None, ["exact"] * IMAGES, StageClock(CPU))

    def both(search: EvidenceSearch, inputs: Batch) -> object:
        first(search, inputs)  # random weights send every image to one task: it is computed, and replaced
        return passes.second(inputs, sets, range(IMAGES + 1))

    found: dict[str, Callable[[], object]] = {"dense": lambda: run(loaded.architecture, dense, patches)}
    for share in SHARES:
        router = loaded.router.model_copy(update={"late_mlp_share": share})
        search = EvidenceSearch(replace(loaded, router=router), passes)
        found[f"first pass and evidence, {share:g}"] = lambda own=search: first(own, patches)  # type: ignore[misc]
        found[f"both passes, {share:g}"] = lambda own=search: both(own, patches)  # type: ignore[misc]
    return found


@torch.inference_mode()
def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.thin_first_pass_times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here; others stay")
    parser.add_argument("--tasks", type=int, nargs="+", default=TASKS)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recorded = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for tasks in options.tasks:
        for dtype in DTYPES:
            seconds = minima(variants(random_store(VIT_B_32, tasks, dtype, CPU)), options.rounds)
            ratios = {name: round(own / seconds["dense"], 3) for name, own in seconds.items()}
            name = f"{tasks} tasks, {str(dtype).removeprefix('torch.')}"
            recorded[name] = {"dense_seconds": round(seconds["dense"], 4), **ratios}
            print(f"{name}: {recorded[name]}", flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(recorded, indent=2) + "\n")


if __name__ == "__main__":
    main()
