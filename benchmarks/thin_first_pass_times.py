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

from benchmarks.packed_speed import random_vectors
from benchmarks.random_models import CLASSES, VIT_B_32, random_parameters
from benchmarks.timing import minima
from mass_serve.backbone import Batch, ClassificationHead, DenseWeights, ExpertBank, passes_for, run
from mass_serve.engine.evidence_search import EvidenceSearch
from mass_serve.engine.heads import TaskHead
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import placed_parameters
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.engine.stages import StageClock
from mass_serve.merging import rank_for
from mass_serve.model_store.format.block_formats import BLOCK_FORMS
from mass_serve.model_store.format.entries import HeadSpec, RouterSpec, TaskEntry
from mass_serve.model_store.format.file_names import task_folder
from mass_serve.model_store.format.preprocessing import Preprocessing

TASKS = (8, 20)
DTYPES = (torch.float32, torch.bfloat16)
IMAGES = 8
SHARES = (1.0, 0.5, 0.25)
CPU = torch.device("cpu")


def random_store(tasks: int, dtype: torch.dtype) -> LoadedStore:
    """A store in memory of so many tasks that changed every matrix."""
    generator = torch.Generator().manual_seed(0)
    pretrained = placed_parameters(random_parameters(VIT_B_32, generator).items(), VIT_B_32, CPU, dtype)
    shapes = VIT_B_32.matrix_shapes()
    ranks = {name: rank_for(shape, 1 / tasks) for name, shape in shapes.items()}
    vectors_of = {name: own for name, own in VIT_B_32.parameter_shapes().items() if name not in shapes}
    bank = ExpertBank(VIT_B_32, pretrained, [ranks] * tasks)
    for task in range(tasks):
        vectors = {
            name: BLOCK_FORMS["bfloat16"].kept(random_vectors(shapes[name], rank, generator))
            for name, rank in ranks.items()
        }
        rest = {name: torch.zeros(shape) for name, shape in vectors_of.items()}
        bank.set_task(task, vectors, rest)
    crop = VIT_B_32.patches.image_size
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    described = Preprocessing(size=crop, crop=crop, interpolation="bicubic", mean=mean, std=std)
    return LoadedStore(
        store_revision="random",
        architecture=VIT_B_32,
        preprocessing=ImagePreprocessor(described),
        router=RouterSpec(mode="exact", layer=9, first_pass="pretrained"),
        mode="exact",
        calibration=None,
        device=CPU,
        dtype=dtype,
        pretrained=pretrained,
        first_pass=pretrained,
        first_pass_nbytes=0,
        bank=bank,
        heads=tuple(_head(f"task{task}", generator) for task in range(tasks)),
        experts=tuple((f"task{task}", "") for task in range(tasks)),
    )


def _head(name: str, generator: torch.Generator) -> TaskHead:
    files = (f"{task_folder(name, '00000000')}/{kind}.safetensors" for kind in ("experts", "head"))
    entry = TaskEntry(
        name=name,
        revision="00000000",
        labels=tuple(map(str, range(CLASSES))),
        head=HeadSpec(kind="cosine"),
        rank=1,
        individual_accuracy=None,
        files=dict.fromkeys(files, 64 * "0"),
    )
    weight = torch.randn(CLASSES, VIT_B_32.embedding_dim, generator=generator)
    return TaskHead(entry, ClassificationHead(weight, logit_scale=30.0))


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
            seconds = minima(variants(random_store(tasks, dtype)), options.rounds)
            ratios = {name: round(own / seconds["dense"], 3) for name, own in seconds.items()}
            name = f"{tasks} tasks, {str(dtype).removeprefix('torch.')}"
            recorded[name] = {"dense_seconds": round(seconds["dense"], 4), **ratios}
            print(f"{name}: {recorded[name]}", flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(recorded, indent=2) + "\n")


if __name__ == "__main__":
    main()
