"""What a thinner first pass saves, at the sizes of CLIP ViT-B/32, as ratios within one run.

    python -m benchmarks.thin_first_pass_times [--json FILE] [--tasks N ...] [--rounds N]

The tasks are random, at rank 1/T of every matrix, with blocks in 16 bits: what is in them takes no time. An
image is routed and gets a second pass with one task's weights, tasks mixed. In `exact` its first pass is a
whole one, as is the second, which most images get there and all in `balanced`. In `fast` LEAVE_EARLY of the
IMAGES leave the first pass a third of the way, as on the demo and on both real encoders, and all second
passes resume there, but for half the resolution, whose tokens are no use to them. Times are the least
processor seconds of one thread over rounds in which all variants take turns, over those of our dense pass in
the same dtype.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.half_resolution import halved, on_half_grid
from benchmarks.random_models import VIT_B_32
from benchmarks.random_stores import random_store
from benchmarks.timing import minima
from mass_serve.backbone import Batch, DenseWeights, PassResult, passes_for, run, with_quantised_linears
from mass_serve.engine.evidence_search import EvidenceSearch
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.stages import StageClock

TASKS = (8, 20)
DTYPES = (torch.float32, torch.bfloat16)
IMAGES, LEAVE_EARLY = 8, 5
SHARES = (1.0, 0.5, 0.25)  # of tokens with MLPs of their own
CPU = torch.device("cpu")


class PreparedSearch(EvidenceSearch):
    """A search whose first passes read patches that are prepared from those of second passes."""

    def __init__(
        self, loaded: LoadedStore, share: float = 1.0, prepare: Callable[[Tensor], Tensor] = lambda x: x
    ) -> None:
        self._prepare = prepare
        router = loaded.router.model_copy(update={"late_mlp_share": share})
        super().__init__(replace(loaded, router=router), passes_for(loaded.bank, loaded.first_pass, 1))

    def begin(self, inputs: Batch, candidates: Tensor | None = None) -> PassResult:
        assert isinstance(inputs, Tensor)  # patches
        return super().begin(self._prepare(inputs), candidates)


class Passes:
    """The passes over a batch, the first ones by the search of one variant."""

    def __init__(self, loaded: LoadedStore, patches: Tensor) -> None:
        """`loaded` is the store whose second passes answer about the patches [IMAGES, n, 3 p p]."""
        tasks = len(loaded.heads)
        self.patches = patches
        self._second = passes_for(loaded.bank, loaded.first_pass, 1).second
        # Random weights send every image to one task: the search is computed, and its result replaced.
        places = [(sample % tasks,) for sample in range(IMAGES)]
        self._sets = [loaded.bank.expert_set(own, materialised=False) for own in places]
        self._every = torch.ones(IMAGES, tasks, dtype=torch.bool)

    def first(self, search: EvidenceSearch) -> None:
        """Whole first passes, and all evidence."""
        search.search(range(IMAGES), self.patches, self._every, None, ["exact"] * IMAGES, StageClock(CPU))

    def exact(self, search: EvidenceSearch) -> None:
        """The same, and a whole second pass each."""
        self.first(search)
        self._second(self.patches, self._sets, range(IMAGES + 1))

    def fast(self, search: EvidenceSearch, leaving: int, *, resumes: bool) -> None:
        """Early evidence of all, the rest of a first pass for those that do not leave, and second passes."""
        begun = search.begin(self.patches, self._every)
        search.router.early(begun.energies, self._every, None).samples()
        if leaving < IMAGES:
            rest = torch.arange(leaving, IMAGES)
            search._whole_evidence(begun.of_samples(rest), self._every[rest], None, StageClock(CPU))
        entering, start = (
            (begun.tokens.to(self.patches.dtype), search._stop) if resumes else (self.patches, None)
        )
        self._second(entering, self._sets, range(IMAGES + 1), start)


def variants(loaded: LoadedStore) -> dict[str, Callable[[], object]]:
    """The dense pass and, by first pass, what is timed of it."""
    part, like = loaded.architecture.patches, loaded.bank.like
    count = part.num_tokens - part.tokens_before_patches
    patches = torch.randn(IMAGES, count, part.patch_width).to(like.dtype)
    passes, dense = Passes(loaded, patches), DenseWeights(loaded.pretrained)
    found: dict[str, Callable[[], object]] = {"dense": lambda: run(loaded.architecture, dense, patches)}

    def add(name: str, search: EvidenceSearch, *, resumes: bool = True) -> None:
        found[f"{name}: first pass"] = lambda: passes.first(search)
        found[f"{name}: exact"] = lambda: passes.exact(search)
        found[f"{name}: fast"] = lambda: passes.fast(search, LEAVE_EARLY, resumes=resumes)
        found[f"{name}: fast, all early"] = lambda: passes.fast(search, IMAGES, resumes=resumes)

    for share in SHARES:
        add("all" if share == 1 else f"own MLPs {share:g}", PreparedSearch(loaded, share))
    smaller = replace(loaded, first_pass=on_half_grid(loaded.first_pass, part))
    add(
        "half resolution", PreparedSearch(smaller, prepare=lambda inputs: halved(inputs, part)), resumes=False
    )
    quantised = replace(loaded, first_pass=with_quantised_linears(loaded.first_pass, loaded.architecture))
    for share in SHARES[:2]:
        add("int8" if share == 1 else f"int8, own MLPs {share:g}", PreparedSearch(quantised, share))
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
            dense = seconds.pop("dense")
            ratios: dict[str, dict[str, float]] = {}
            for of, own in seconds.items():
                first_pass, _, timed = of.partition(": ")
                ratios.setdefault(first_pass, {})[timed] = round(own / dense, 3)
            name = f"{tasks} tasks, {str(dtype).removeprefix('torch.')}"
            recorded[name] = {"dense_seconds": round(dense, 4), "first_passes": ratios}
            print(f"{name}: {recorded[name]}", flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(recorded, indent=2) + "\n")


if __name__ == "__main__":
    main()
