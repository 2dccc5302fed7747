"""An engine and its passes on one GPU over the best dense ViT in the same run, and other servers' ways.

    python -m benchmarks.engine_gpu --json benchmarks/results/engine_gpu.json

Needs torch, triton, transformers and peft, and for whole batches of an engine, a reload under load and images
from JPEGs (`benchmarks.served_gpu`) what the package needs, too; weights are random, in bfloat16. The dense
model D is transformers' CLIP encoder, graphed, or compiled and graphed, whichever is faster at that batch
size. Without an NVIDIA GPU it ends with exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import triton
from torch import Tensor

from benchmarks import gpu_models, gpu_peers
from benchmarks.gpu_models import VITS, Form, random_mix
from benchmarks.gpu_timing import card, ceilings, graphed, medians, need_cuda
from mass_serve.backbone import (
    Architecture,
    ExpertBank,
    Feature,
    Passes,
    Probe,
    passes_for,
    patchify,
    weight_of,
)
from mass_serve.kernels.backend import backend
from mass_serve.router import SubspaceRouter

BATCHES = (1, 8, 64, 256)
TASKS = (8, 20)
SET_SIZES = (1, 2, 3)
SETS = (1, 4, 8, 20)
ROUTER_LAYERS = {12: 9, 24: 20}
HEADLINE_MODEL, HEADLINE_BATCH = "B/16", 64
# Seconds for each figure, enough for a median: a pass takes milliseconds.
BUDGET = 0.2
WARM_UP = 3
SERVED_TASKS = 8
RELOAD_SECONDS = 2.0  # of batches before a reload begins
DECODED_BATCHES = 20
# bfloat16 rounds every activation; another order of summation moves an embedding by no more than this.
AGREEMENT = 0.05


@dataclass
class Run:
    """Holds where and with what a run measures, and its figures so far."""

    device: torch.device
    dtype: torch.dtype
    budget: float = BUDGET
    warm_up: int = WARM_UP
    raw: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def time(self, variants: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Medians of variants, kept and shown."""
        times = medians(variants, self.device, self.budget, self.warm_up)
        self.raw |= times
        for name, value in times.items():
            print(f"{name:64s} {1000 * value:10.3f} ms", flush=True)
        return times


@dataclass
class Model:
    """One size with the experts of T tasks."""

    name: str
    architecture: Architecture
    bank: ExpertBank
    passes: Passes
    router: SubspaceRouter
    probe: Probe

    @classmethod
    def random(cls, name: str, architecture: Architecture, tasks: int, run: Run) -> Model:
        """Random weights; the router stands where the defaults put it."""
        weights = gpu_models.random_encoder(architecture, run.dtype, run.device)
        bank = gpu_models.random_bank(architecture, weights, tasks)
        layer = ROUTER_LAYERS.get(architecture.depth, architecture.depth - 1)
        first = {n: weights[n].clone() for n in architecture.first_pass_parameters(weights, layer)}
        passes = passes_for(bank, first, max_set_size=min(3, tasks))
        subspaces = bank.leading_rows(weight_of(architecture.residual_linear(layer)), range(tasks))
        router = SubspaceRouter(subspaces, temperature=1.0, threshold=0.2, top_k=3)
        return cls(name, architecture, bank, passes, router, Probe(feature=Feature(layer, "class")))

    def patches(self, batch: int, run: Run) -> Tensor:
        """Patches of a random batch."""
        size = self.architecture.patches.image_size
        pixels = torch.randn(batch, 3, size, size, device=run.device, dtype=run.dtype)
        return patchify(pixels, self.architecture.patches.patch_size)


def dense_times(
    name: str, architecture: Architecture, batches: tuple[int, ...], run: Run
) -> dict[int, float]:
    """D: the seconds of the best dense forward at each batch size. Compiled at the headline batch alone."""
    model, size = (
        gpu_peers.dense_model(architecture, run.dtype, run.device),
        architecture.patches.image_size,
    )
    best = {}
    for batch in batches:
        pixels = torch.randn(batch, 3, size, size, device=run.device).to(run.dtype)
        variants = {f"{name} dense graphed batch {batch}": gpu_peers.dense_forward(model, pixels)}
        if batch == HEADLINE_BATCH and run.device.type == "cuda":
            compiled = gpu_peers.compiled_forward(model, pixels)
            variants[f"{name} dense compiled batch {batch}"] = compiled
        best[batch] = min(run.time(variants).values())
    return best


def check(model: Model, run: Run) -> None:
    """The fused second pass against the reference's. Raises AssertionError where they disagree."""
    patches = model.patches(4, run)
    for form, size in (("low_rank", 1), ("low_rank", 2), ("materialised", 1), ("base_only", 1)):
        mix = random_mix(model.bank, 4, size, 2, form)  # type: ignore[arg-type]
        found = model.passes.second(patches, mix.expert_sets, mix.offsets)
        with backend("reference"):
            plain = passes_for(model.bank, model.bank.pretrained, max_set_size=size)
            wanted = plain.second(patches, mix.expert_sets, mix.offsets)
        error = gpu_models.relative_error(found, wanted)
        print(f"{model.name} {form} of {size}: relative difference to the reference {error:.1e}", flush=True)
        if not error < AGREEMENT:
            raise AssertionError(
                f"{model.name}, {form} sets of {size}: fused and reference differ by {error}"
            )


def second_pass(model: Model, batch: int, size: int, sets: int, form: Form, run: Run) -> Callable[[], object]:
    """The second pass of a mixed batch."""
    mix, patches = random_mix(model.bank, batch, size, sets, form), model.patches(batch, run)
    return lambda: model.passes.second(patches, mix.expert_sets, mix.offsets)


def both_passes(model: Model, batch: int, sets: int, run: Run) -> Callable[[], object]:
    """First pass, routing with its copy to the host, second pass with one task for each sample.

    The experts are fixed, because random weights would send every image to one task.
    """
    mix, patches = random_mix(model.bank, batch, 1, sets, "low_rank"), model.patches(batch, run)
    candidates = torch.ones(batch, model.bank.num_tasks, dtype=torch.bool)

    def run_both() -> object:
        first = model.passes.first(patches, stop="feature", probe=model.probe)
        residuals = model.router.residuals(first.feature)
        model.router.expert_sets(model.router.coefficients(residuals, candidates))
        return model.passes.second(patches, mix.expert_sets, mix.offsets)

    return run_both


def measure_model(
    model: Model, dense: dict[int, float], sets: tuple[int, ...], sizes: tuple[int, ...], run: Run
) -> None:
    """The grid of one model: ratios of every mix to D at the same batch size."""
    tasks = model.bank.num_tasks
    for batch, d in dense.items():
        label = f"{model.name} T {tasks} batch {batch}"
        variants = {f"{label} base only": second_pass(model, batch, 1, 1, "base_only", run)}
        for size in sizes:
            for count in sets:
                if count <= batch:
                    name = f"{label} low rank of {size} in {count} sets"
                    variants[name] = second_pass(model, batch, size, count, "low_rank", run)
        if tasks == min(TASKS):
            count = min(8, batch)
            variants[f"{label} materialised in {count} sets"] = second_pass(
                model, batch, 1, count, "materialised", run
            )
        variants[f"{label} both passes"] = both_passes(model, batch, min(tasks, batch), run)
        for name, variant in variants.items():
            run.ratios[name] = run.time({name: variant})[name] / d


def product_for_each_segment(model: Model, batch: int, sets: int, run: Run) -> Callable[[], object]:
    """The same second pass in PyTorch's own products: a base product for all rows, then two for each segment.

    All of it is replayed from a graph. Servers of adapters make the two in one launch each for all segments.
    """
    mix, patches = random_mix(model.bank, batch, 1, sets, "low_rank"), model.patches(batch, run)
    with backend("reference"):
        passes = passes_for(model.bank, model.bank.pretrained, max_set_size=1)

    @torch.inference_mode()
    def separate() -> object:
        with backend("reference"):
            return passes.second(patches, mix.expert_sets, mix.offsets)

    return graphed(separate, run.device)


def measure_peers(model: Model, dense_model: object, batch: int, sets: int, run: Run) -> dict[str, float]:
    """PEFT's mixed batch, products for each segment, and a loop over dense models of each set, over ours."""
    size = model.architecture.patches.image_size
    pixels = torch.randn(batch, 3, size, size, device=run.device, dtype=run.dtype)
    # The loop runs one model again and again, which favours it: its weights stay in the cache.
    shares = Counter(batch // sets + (place < batch % sets) for place in range(sets))
    forward_of = {
        share: gpu_peers.dense_forward(dense_model, pixels[:share].clone()) for share in shares if share
    }
    loop_of_models = [forward for share, forward in forward_of.items() for _ in range(shares[share])]
    tasks = [sample * sets // batch for sample in range(batch)]
    rank = max(model.bank.ranks[weight_of(model.architecture.linears[1])])
    label = f"{model.name} batch {batch} in {sets} sets"
    ours = second_pass(model, batch, 1, sets, "low_rank", run)
    variants = {
        f"{label} ours": ours,
        f"{label} loop": lambda: [forward() for forward in loop_of_models],
        f"{label} segments": product_for_each_segment(model, batch, sets, run),
    }
    loop = run.time(variants)
    mixed = gpu_peers.peft_forward(dense_model, pixels, tasks, rank)
    peft = run.time({f"{label} ours beside peft": ours, f"{label} peft": mixed})
    return {
        "loop_speedup": loop[f"{label} loop"] / loop[f"{label} ours"],
        "product_for_each_segment_speedup": loop[f"{label} segments"] / loop[f"{label} ours"],
        "peft_speedup": peft[f"{label} peft"] / peft[f"{label} ours beside peft"],
    }


def headline(run: Run) -> dict[str, float]:
    """The figures that have targets, from the grid."""
    at = f"{HEADLINE_MODEL} T {{}} batch {HEADLINE_BATCH} {{}}"
    keys = {
        "base_only_ratio": (20, "base only"),
        "second_pass_ratio_t20_k1": (20, "low rank of 1 in 20 sets"),
        "second_pass_ratio_t20_k3": (20, "low rank of 3 in 20 sets"),
        "second_pass_ratio_t8_k1": (8, "low rank of 1 in 8 sets"),
        "materialised_ratio_t8": (8, "materialised in 8 sets"),
        "both_passes_ratio_t20": (20, "both passes"),
        "both_passes_ratio_t8": (8, "both passes"),
    }
    figures = {key: run.ratios[at.format(*place)] for key, place in keys.items()}
    one, many = (at.format(20, f"low rank of 1 in {sets} sets") for sets in (1, 20))
    figures["throughput_20_sets_vs_1"] = run.raw[one] / run.raw[many]
    return figures


def measure(run: Run) -> dict[str, object]:
    """Everything; the model with targets first."""
    limits = ceilings(run.device)
    figures: dict[str, float] = {}
    for name in sorted(VITS, key=lambda vit: vit != HEADLINE_MODEL):
        dense = dense_times(name, VITS[name], BATCHES, run)
        work = 2 * gpu_models.multiply_adds(VITS[name], HEADLINE_BATCH)
        share = work / dense[HEADLINE_BATCH] / limits["matrix_operations_per_second"]
        run.ratios[f"{name} dense batch {HEADLINE_BATCH} over the measured matrix rate"] = share
        for tasks in TASKS:
            model = Model.random(name, VITS[name], tasks, run)
            check(model, run)
            measure_model(model, dense, SETS, SET_SIZES, run)
            if (name, tasks) == (HEADLINE_MODEL, max(TASKS)):
                peer = gpu_peers.dense_model(VITS[name], run.dtype, run.device)
                figures = headline(run) | measure_peers(model, peer, HEADLINE_BATCH, 20, run)
            torch.cuda.empty_cache()
        if name == HEADLINE_MODEL:
            with torch.inference_mode(False):  # engines enter it themselves
                figures |= measure_served(dense[HEADLINE_BATCH], run)
    return {**figures, "ceilings": limits, "ratios": run.ratios, "raw_seconds": run.raw}


def measure_served(dense: float, run: Run) -> dict[str, float]:
    """What an engine does with a store of the headline's sizes; a dense pass takes `dense` seconds."""
    from benchmarks import served_gpu
    from benchmarks.engine.stores import build
    from benchmarks.random_models import write_checkpoints

    device, workers = str(run.device), os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        pretrained, finetuned = write_checkpoints(Path(folder), VITS[HEADLINE_MODEL], SERVED_TASKS)
        store, _ = build(Path(folder), pretrained, finetuned, "exact")
        times = served_gpu.batch_seconds(store, device, (1, HEADLINE_BATCH), run.budget, run.warm_up)
        figures = {
            f"{name} over dense": seconds / dense
            for name, seconds in times.items()
            if name.endswith(f"batch {HEADLINE_BATCH}")
        }
        figures |= served_gpu.reload_under_load(store, device, HEADLINE_BATCH, RELOAD_SECONDS)
        figures |= served_gpu.images_per_second(store, device, HEADLINE_BATCH, DECODED_BATCHES, workers)
    run.raw |= times
    return figures


@torch.inference_mode()
def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    device = need_cuda()
    start = time.perf_counter()
    content = measure(Run(device, torch.bfloat16))
    content["environment"] = {
        "card": card(device),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "seconds": time.perf_counter() - start,
    }
    for name, value in content.items():
        if isinstance(value, float):
            print(f"{name:30s} {value:8.3f}")
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
