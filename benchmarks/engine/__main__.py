"""Speed and memory of the engine on a CPU, at the sizes of CLIP ViT-B/32, as ratios within one run.

    python -m benchmarks.engine [--quick] [--json FILE] [--work FOLDER]

Makes checkpoints with random weights, builds stores of 2, 8 and 20 tasks from them with `mass-serve build`,
and measures what the server would do with them and with the demo store: in every mode, for batches of 1, 8
and 32 images, in float32, bfloat16 and int8, beside dense models and many models by other libraries (extra
`peers`). Takes 20 minutes and 10 GB of disk on two cores; `--quick` takes 3: the times of 8 tasks and of the
demo store for 8 images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import http_overhead
from benchmarks.engine.dense import DenseModels, fastest, left_out
from benchmarks.engine.rebuilding import rebuild_times
from benchmarks.engine.stores import build, memory, store_ratio
from benchmarks.engine.times import Times, times_of
from benchmarks.hot_path import queries as demo_queries
from benchmarks.random_models import VIT_B_32, write_checkpoints
from mass_serve.backbone import Architecture
from mass_serve.engine import Engine, Query
from mass_serve.server.startup import demo_store

TASKS, QUICK_TASKS = (8, 20, 2), (8,)
# By the size of a batch: what is shorter is measured more often.
ROUNDS, QUICK_ROUNDS = {1: 4, 8: 2, 32: 1}, {8: 1}
BATCH = max(ROUNDS)
HTTP_ROUNDS, REBUILDING_ROUNDS = 3, 1
LIBRARIES = ("torch", "transformers", "onnxruntime", "openvino", "peft")


class Figures:
    """Holds what was measured so far: shown at once, and written at once if a file was named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._ratios: dict[str, float] = {}
        self._times: list[Times] = []
        self._raw: dict[str, float] = {}

    def add(self, ratios: dict[str, float], raw: dict[str, float]) -> None:
        """Takes and shows figures."""
        self._ratios |= ratios
        self._raw |= raw
        for name, value in ratios.items():
            print(f"{name:28s} {value:9.3f}", flush=True)
        self._write()

    def add_times(self, times: Times) -> None:
        """Takes the times of a batch, and shows them over that of the fastest dense model."""
        self._times.append(times)
        unit = fastest(times.dense)
        for name, seconds in {**times.dense, **times.answers, **times.many_models}.items():
            print(
                f"{times.store:8s} {times.dtype:8s} {times.batch:2d}  {name:40s} {seconds / unit:6.2f}",
                flush=True,
            )
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        environment = {"threads": torch.get_num_threads(), "batch": BATCH, "left_out": list(left_out())}
        content: dict[str, Any] = {
            **self._ratios,
            "times": [times.as_json() for times in self._times],
            "raw": self._raw,
            "environment": environment | dict(_versions()),
        }
        self._path.write_text(json.dumps(content, indent=2) + "\n")


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, PyTorch computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_store(tasks: int, store: Path, pretrained: Path, figures: Figures) -> None:
    """Size on disk and in memory of a store of `tasks` tasks."""
    dense_bytes = float((pretrained / "model.safetensors").stat().st_size)
    used = memory(store)
    ratios = {
        f"store_ratio_t{tasks}": store_ratio(store, pretrained),
        f"memory_ratio_t{tasks}": used["tensors"] / dense_bytes,
        f"resident_ratio_t{tasks}": used["resident"] / dense_bytes,
    }
    raw = {
        f"tensors_bytes_t{tasks}": used["tensors"],
        f"resident_bytes_t{tasks}": used["resident"],
        f"load_seconds_t{tasks}": used["load_seconds"],
    }
    figures.add(ratios, raw)


def measure_whole(store: Path, images: Sequence[Tensor], figures: Figures) -> None:
    """Rebuilding and HTTP, on all threads."""
    engine = Engine.load(str(store), dtype="float32")
    rebuilt = rebuild_times(engine, [Query(image) for image in images], REBUILDING_ROUNDS)
    figures.add({"naive_rebuild_speedup": rebuilt["naive_20_sets"] / rebuilt["first_seen_20_sets"]}, rebuilt)
    http = http_overhead.measure(engine, store, HTTP_ROUNDS)
    alone = http["engine_seconds"] + http["decode_seconds"]
    figures.add({"http_overhead": http["http_seconds"] / alone - 1}, http)


def measure_times(
    store: str, name: str, models: DenseModels, images: Sequence[Tensor], quick: bool, figures: Figures
) -> None:
    """Every mode of a store in every dtype, on one thread."""
    with one_thread():
        for times in times_of(store, name, models, images, QUICK_ROUNDS if quick else ROUNDS):
            figures.add_times(times)


def measure(folder: Path, architecture: Architecture, quick: bool, figures: Figures) -> None:
    """Everything; the figures of 8 tasks first."""
    for line in left_out().values():
        print(line, flush=True)
    counts = QUICK_TASKS if quick else TASKS
    pretrained, finetuned = write_checkpoints(folder, architecture, max(counts))
    generator, size = torch.Generator().manual_seed(1), architecture.patches.image_size
    images = list(torch.randint(0, 256, (BATCH, 3, size, size), generator=generator, dtype=torch.uint8))
    models = DenseModels(architecture, folder)
    for tasks in counts:
        store, seconds = build(folder, pretrained, finetuned[:tasks])
        if not quick:
            figures.add({f"build_seconds_t{tasks}": seconds}, {})
            measure_store(tasks, store, pretrained, figures)
        if tasks == 8 and not quick:
            measure_whole(store, images, figures)
        measure_times(str(store), f"{tasks} tasks", models, images, quick, figures)
    demo = Engine.load(demo_store(), device="cpu", dtype="float32")
    samples = [query.pixels for query in demo_queries(demo, BATCH)]
    (folder / "demo").mkdir()
    small = DenseModels(demo.architecture, folder / "demo")
    measure_times(demo_store(), "the demo", small, samples, quick, figures)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument(
        "--work", type=Path, help="folder for checkpoints and stores (default: a temporary one)"
    )
    parser.add_argument("--quick", action="store_true", help="8 images and 8 tasks, and the demo, alone")
    options = parser.parse_args()
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        measure(Path(folder), VIT_B_32, options.quick, Figures(options.json))


if __name__ == "__main__":
    main()
