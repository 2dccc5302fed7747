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
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from benchmarks import http_overhead, naive
from benchmarks.random_models import VIT_B_32, write_checkpoints
from benchmarks.timing import medians
from mass_serve.backbone import Batch, DenseWeights, run
from mass_serve.engine import Engine, Query
from mass_serve.engine.second_passes import SecondPass
from mass_serve.engine.set_cache import SetCache
from mass_serve.engine.stages import StageClock
from mass_serve.model_store.store import Store

BATCH = 32


def build(folder: Path, pretrained: Path, finetuned: list[Path], mode: str = "paper") -> tuple[Path, float]:
    """A store of those tasks, built by the command, and the seconds it took.

    In the paper's mode the cost of an image does not depend on what is in it, and these images are noise.
    """
    out = folder / f"store{len(finetuned)}"
    tasks = [argument for path in finetuned for argument in ("--task", f"{path.name}={path}")]
    command = [
        sys.executable,
        "-m",
        "mass_serve.cli",
        "build",
        "--mode",
        mode,
        "--format",
        "bfloat16",  # as in all figures that are recorded; benchmarks.packed_speed has the other formats
        "--pretrained",
        str(pretrained),
        *tasks,
    ]
    start = time.perf_counter()
    subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    return out, time.perf_counter() - start


def store_ratio(store: Path, pretrained: Path) -> float:
    """Bytes of a store over those of the float32 encoder, without heads and a merged base.

    Only the paper's mode has a merged base, one encoder more, where that is slow to rebuild.
    """
    manifest = Store.open(store).manifest
    apart = {manifest.merged_base_file, *(task.head_file for task in manifest.tasks)}
    files = [path for path in manifest.all_files() if path not in apart]
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
    planned = [SecondPass(sample, (sample % tasks,)) for sample in range(BATCH)]

    def second(patches: Batch) -> Tensor:
        return engine._second_passes.run(planned, patches)

    @torch.inference_mode()
    def second_pass() -> Tensor:
        return second(engine._inputs(queries))

    @torch.inference_mode()
    def both_passes() -> Tensor:
        # Random weights send every image to the same task, so the routing is computed and then replaced.
        patches = engine._inputs(queries)
        candidates = torch.ones(BATCH, tasks, dtype=torch.bool)
        engine._search.search(
            range(BATCH), patches, candidates, None, [engine.modes[0]] * BATCH, StageClock(patches.device)
        )
        return second(patches)

    return {f"second_pass_t{tasks}": second_pass, f"both_passes_t{tasks}": both_passes}


def patches_of(engine: Engine, queries: list[Query]) -> Tensor:
    """The normalised patches of images."""
    patches = engine._inputs(queries)
    assert isinstance(patches, Tensor)
    return patches


def dense_forwards(engine: Engine, pretrained: Path, queries: list[Query]) -> dict[str, Callable[[], object]]:
    """The same batch through one dense model: our backbone, and transformers'."""
    reference = CLIPVisionModelWithProjection.from_pretrained(pretrained).eval()  # type: ignore[no-untyped-call]
    weights = DenseWeights(engine.bank.pretrained)
    pixels = engine.preprocessing.normalise(torch.stack([query.pixels for query in queries]))

    @torch.inference_mode()
    def ours() -> Tensor:
        return run(engine.architecture, weights, engine._inputs(queries)).embedding

    @torch.inference_mode()
    def transformers() -> Tensor:
        embeddings: Tensor = reference(pixels).image_embeds
        return embeddings

    return {"dense_ours": ours, "dense_transformers": transformers}


def rebuild_times(engine: Engine, queries: list[Query], rounds: int) -> dict[str, float]:
    """20 expert sets of two tasks in one batch, seen for the first time: shared blocks against rebuilding."""
    pairs = list(combinations(range(len(engine.tasks)), 2))[:20]
    expert_sets = [pairs[sample % len(pairs)] for sample in range(BATCH)]
    planned = [SecondPass(sample, expert_set) for sample, expert_set in enumerate(expert_sets)]
    embeddings: dict[str, Tensor] = {}

    @torch.inference_mode()
    def shared_blocks() -> None:
        empty = SetCache(engine.bank, engine.set_cache.budget_bytes)
        runner = replace(engine._second_passes, set_cache=empty)
        embeddings["ours"] = runner.run(planned, engine._inputs(queries))

    @torch.inference_mode()
    def rebuilding() -> None:
        embeddings["naive"] = naive.serve(engine.bank, expert_sets, patches_of(engine, queries))

    times = medians({"first_seen_20_sets": shared_blocks, "naive_20_sets": rebuilding}, rounds)
    agreement = (embeddings["ours"] - embeddings["naive"]).abs().max() / embeddings["naive"].abs().max()
    if agreement > 1e-3:
        raise AssertionError(f"the two ways to serve disagree by {agreement:.1e}")
    return times


class Figures:
    """Holds what was measured so far: shown at once, and written at once if a file was named."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.ratios: dict[str, float] = {}
        self.raw: dict[str, float] = {}

    def add(self, ratios: dict[str, float], raw: dict[str, float]) -> None:
        """Takes and shows figures."""
        self.ratios |= ratios
        self.raw |= raw
        for name, value in ratios.items():
            print(f"{name:28s} {value:9.3f}", flush=True)
        if self.path is not None:
            environment = {"torch": torch.__version__, "threads": torch.get_num_threads(), "batch": BATCH}
            content = self.ratios | {"raw": self.raw, "environment": environment}
            self.path.write_text(json.dumps(content, indent=2) + "\n")


def measure_store(tasks: int, store: Path, pretrained: Path, figures: Figures) -> None:
    """Size on disk and in memory of a store of `tasks` tasks."""
    dense_bytes = float((pretrained / "model.safetensors").stat().st_size)
    used = memory(store)
    ratios = {
        f"store_ratio_t{tasks}": store_ratio(store, pretrained),
        f"memory_ratio_t{tasks}": used["tensors"] / dense_bytes,
        f"resident_ratio_t{tasks}": used["resident"] / dense_bytes,
    }
    figures.add(ratios, {f"{kind}_bytes_t{tasks}": value for kind, value in used.items()})


def measure_passes(
    tasks: int, engine: Engine, pretrained: Path, queries: list[Query], rounds: int, figures: Figures
) -> None:
    """The passes of a store of `tasks` tasks over the dense forward."""
    named = [Query(query.pixels, ("task0",)) for query in queries]
    variants = dense_forwards(engine, pretrained, queries) | passes(engine, queries, tasks)
    variants[f"named_task_t{tasks}"] = lambda: engine.classify_batch(named)
    times = medians(variants, rounds)
    dense = min(times["dense_ours"], times["dense_transformers"])
    measured = ("second_pass", "both_passes", "named_task")
    ratios = {f"{name}_ratio_t{tasks}": times[f"{name}_t{tasks}"] / dense for name in measured}
    figures.add(ratios, {f"{name}_seconds_of_t{tasks}": seconds for name, seconds in times.items()})


def measure(folder: Path, rounds: int, figures: Figures) -> None:
    """Everything; the figures of 8 tasks first."""
    pretrained, finetuned = write_checkpoints(folder, VIT_B_32, 20)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (BATCH, 3, 224, 224), generator=generator, dtype=torch.uint8)
    queries = [Query(image) for image in images]
    for tasks in (8, 20, 2):
        store, seconds = build(folder, pretrained, finetuned[:tasks])
        figures.add({f"build_seconds_t{tasks}": seconds}, {})
        measure_store(tasks, store, pretrained, figures)
        if tasks == 2:
            continue
        engine = Engine.load(str(store), dtype="float32")
        measure_passes(tasks, engine, pretrained, queries, rounds, figures)
        if tasks == 8:
            rebuilt = rebuild_times(engine, queries, max(3, rounds // 3))
            speedup = rebuilt["naive_20_sets"] / rebuilt["first_seen_20_sets"]
            figures.add({"naive_rebuild_speedup": speedup}, rebuilt)
            http = http_overhead.measure(engine, store, rounds)
            alone = http["engine_seconds"] + http["decode_seconds"]
            figures.add({"http_overhead": http["http_seconds"] / alone - 1}, http)


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
        measure(Path(folder), options.rounds, Figures(options.json))


if __name__ == "__main__":
    main()
