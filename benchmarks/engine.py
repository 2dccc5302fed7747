"""Speed and memory of the engine on a CPU, at the sizes of CLIP ViT-B/32, as ratios within one run.

    python -m benchmarks.engine [--json FILE] [--work FOLDER] [--rounds N]

Makes checkpoints with random weights, builds stores of 2, 8 and 20 tasks from them with `mass-serve build`,
and measures what the server would do with them. The dense model is the same backbone with one set of
weights, ours or transformers', whichever is faster. Takes about 25 minutes and 10 GB of disk on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from backbone import DenseWeights, encode
from benchmarks import http_overhead, naive
from benchmarks.random_models import VIT_B_32, write_checkpoints
from benchmarks.timing import medians
from kernels import group_by_expert_set
from model_store.store import Store
from server.engine import Engine, Query
from server.set_cache import SetCache

BATCH = 32


def build(folder: Path, pretrained: Path, finetuned: list[Path]) -> tuple[Path, float]:
    """A store of those tasks, built by the command, and the seconds it took."""
    out = folder / f"store{len(finetuned)}"
    tasks = [argument for path in finetuned for argument in ("--task", f"{path.name}={path}")]
    command = [sys.executable, "-m", "server", "build", "--pretrained", str(pretrained), *tasks]
    start = time.perf_counter()
    subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    return out, time.perf_counter() - start


def store_ratio(store: Path, pretrained: Path) -> float:
    """Bytes of a store, heads apart, over those of the float32 encoder."""
    manifest = Store.open(store).manifest
    files = [path for path in manifest.all_files() if not path.endswith("head.safetensors")]
    size = sum((store / path).stat().st_size for path in [*files, "manifest.json"])
    return size / (pretrained / "model.safetensors").stat().st_size


def memory(store: Path) -> dict[str, float]:
    """Bytes of a served store: of its tensors, and of the process beyond its imports."""
    command = [sys.executable, "-m", "benchmarks.resident_memory", str(store)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def passes(engine: Engine, queries: list[Query], tasks: int) -> dict[str, Callable[[], object]]:
    """The second pass with one task for each sample, tasks mixed; and both passes, routed and grouped."""
    router = engine._router
    expert_sets = [(sample % tasks,) for sample in range(BATCH)]

    def second(patches: Tensor) -> Tensor:
        return engine._second_pass(patches, group_by_expert_set(expert_sets))

    @torch.inference_mode()
    def second_pass() -> Tensor:
        return second(engine._patches(queries))

    @torch.inference_mode()
    def both_passes() -> Tensor:
        # Random weights send every image to the same task, so the routing is computed and then replaced.
        patches = engine._patches(queries)
        features = engine._first_pass(patches, torch.arange(BATCH))
        router.route(features, torch.ones(BATCH, tasks, dtype=torch.bool))
        return second(patches)

    return {f"second_pass_t{tasks}": second_pass, f"both_passes_t{tasks}": both_passes}


def dense_forwards(engine: Engine, pretrained: Path, queries: list[Query]) -> dict[str, Callable[[], object]]:
    """The same batch through one dense model: our backbone, and transformers'."""
    reference = CLIPVisionModelWithProjection.from_pretrained(pretrained).eval()  # type: ignore[no-untyped-call]
    weights = DenseWeights(engine.bank.pretrained, engine.config.layer_norm_eps)
    pixels = engine.preprocessing.normalise(torch.stack([query.pixels for query in queries]))

    @torch.inference_mode()
    def ours() -> Tensor:
        return encode(engine.config, weights, engine._patches(queries))

    @torch.inference_mode()
    def transformers() -> Tensor:
        embeddings: Tensor = reference(pixels).image_embeds
        return embeddings

    return {"dense_ours": ours, "dense_transformers": transformers}


def rebuild_speedup(engine: Engine, queries: list[Query], rounds: int) -> dict[str, float]:
    """20 expert sets of two tasks in one batch, seen for the first time: shared blocks against rebuilding."""
    pairs = list(combinations(range(len(engine.tasks)), 2))[:20]
    expert_sets = [pairs[sample % len(pairs)] for sample in range(BATCH)]
    segments = group_by_expert_set(expert_sets)

    @torch.inference_mode()
    def shared_blocks() -> Tensor:
        engine.set_cache = SetCache(engine.bank, engine.set_cache.budget_bytes)
        return engine._second_pass(engine._patches(queries), segments)

    @torch.inference_mode()
    def rebuilding() -> Tensor:
        return naive.serve(engine.bank, expert_sets, engine._patches(queries))

    times = medians({"first_seen_20_sets": shared_blocks, "naive_20_sets": rebuilding}, rounds)
    with torch.inference_mode():
        order = torch.tensor(segments.permutation)
        agreement = (shared_blocks() - rebuilding()[order]).abs().max() / rebuilding().abs().max()
    if agreement > 1e-3:
        raise AssertionError(f"the two ways to serve disagree by {agreement:.1e}")
    return times


def measure(folder: Path, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """(ratios, raw figures)"""
    pretrained, finetuned = write_checkpoints(folder, VIT_B_32, 20)
    built = {tasks: build(folder, pretrained, finetuned[:tasks]) for tasks in (2, 8, 20)}
    stores = {tasks: store for tasks, (store, _) in built.items()}
    raw = {f"build_seconds_t{tasks}": seconds for tasks, (_, seconds) in built.items()}
    ratios = {f"store_ratio_t{tasks}": store_ratio(stores[tasks], pretrained) for tasks in (8, 20)}
    dense_bytes = float((pretrained / "model.safetensors").stat().st_size)
    for tasks in (2, 8, 20):
        used = memory(stores[tasks])
        raw |= {f"{kind}_bytes_t{tasks}": value for kind, value in used.items()}
        ratios[f"memory_ratio_t{tasks}"] = used["tensors"] / dense_bytes
        ratios[f"resident_ratio_t{tasks}"] = used["resident"] / dense_bytes

    engines = {tasks: Engine.load(str(stores[tasks])) for tasks in (8, 20)}
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (BATCH, 3, 224, 224), generator=generator, dtype=torch.uint8)
    queries = [Query(image) for image in images]
    named = [Query(image, ("task0",)) for image in images]
    variants = dense_forwards(engines[8], pretrained, queries)
    for tasks, engine in engines.items():
        variants |= passes(engine, queries, tasks)
    variants["named_task_t8"] = lambda: engines[8].classify_batch(named)
    times = medians(variants, rounds)
    dense = min(times["dense_ours"], times["dense_transformers"])
    times |= rebuild_speedup(engines[8], queries, max(1, rounds // 3))
    over_http = http_overhead.measure(engines[8], stores[8], rounds)
    ratios |= {
        "second_pass_ratio_t8": times["second_pass_t8"] / dense,
        "second_pass_ratio_t20": times["second_pass_t20"] / dense,
        "both_passes_ratio_t8": times["both_passes_t8"] / dense,
        "both_passes_ratio_t20": times["both_passes_t20"] / dense,
        "named_task_ratio_t8": times["named_task_t8"] / dense,
        "naive_rebuild_speedup": times["naive_20_sets"] / times["first_seen_20_sets"],
        "http_overhead": over_http["http_seconds"]
        / (over_http["engine_seconds"] + over_http["decode_seconds"])
        - 1,
    }
    return ratios, raw | {f"{name}_seconds": value for name, value in times.items()} | over_http


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument(
        "--work", type=Path, help="folder for checkpoints and stores (default: a temporary one)"
    )
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        ratios, raw = measure(Path(folder), options.rounds)
    figures = ratios | {"build_seconds_t8": raw["build_seconds_t8"]}
    for name, value in figures.items():
        print(f"{name:28s} {value:9.3f}")
    environment = {"torch": torch.__version__, "threads": torch.get_num_threads(), "batch": BATCH}
    if options.json:
        options.json.write_text(
            json.dumps(figures | {"raw": raw, "environment": environment}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
