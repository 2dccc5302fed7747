"""What `same_task` gains: how often the task is found by several images of one task together.

    python -m benchmarks.pooling STORE DATA [--mode MODE ...] [--sizes 1 4 16] [--json FILE]

DATA is what `mass-serve eval` takes. The images of each task are shuffled, always the same way, and cut into
requests of n images; what is left over is not asked about. Figures are averages over the tasks.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from mass_serve.engine import Classification, Engine
from mass_serve.evaluation.inputs.folders import files_below
from mass_serve.evaluation.inputs.images import SUFFIXES
from mass_serve.inputs.images import ImageLimits, decode_image
from mass_serve.router import MODE_NAMES, ModeName

SIZES = (1, 4, 16)
LIMITS = ImageLimits(max_pixels=50_000_000)


@dataclass(frozen=True)
class Pooled:
    """Figures of one mode and one number of images to a request."""

    mode: str
    size: int
    images: int
    task_right: float  # the task that answers is the images' own
    accuracy: float  # and the label is right too
    passes: float


def requests(paths: Sequence[Path], size: int) -> list[list[Path]]:
    """Images of one task in requests of `size`."""
    shuffled = random.Random(0).sample(list(paths), len(paths))
    return [shuffled[start : start + size] for start in range(0, len(paths) - size + 1, size)]


def measure(engine: Engine, mode: str, size: int, tasks: dict[str, list[Path]]) -> Pooled:
    """Asks about all images, each request with `same_task`."""
    right: dict[str, list[bool]] = {name: [] for name in tasks}
    exact: dict[str, list[bool]] = {name: [] for name in tasks}
    passes = []
    for name, paths in tasks.items():
        for request in requests(paths, size):
            images = [decode_image(path.read_bytes(), LIMITS) for path in request]
            for path, answer in zip(request, engine.classify(images, same_task=True), strict=True):
                right[name].append(answer.task == name)
                exact[name].append(answer.task == name and _label(answer) == path.parent.name)
                passes.append(answer.passes)
    return Pooled(
        mode,
        size,
        len(passes),
        fmean(fmean(one) for one in right.values()),
        fmean(fmean(one) for one in exact.values()),
        fmean(passes),
    )


def _label(answer: Classification) -> str:
    return answer.labels[int(answer.logits.argmax())]


def measure_all(store: str, root: Path, modes: Sequence[ModeName], sizes: Sequence[int]) -> Iterator[Pooled]:
    """Yields the figures of every mode and size."""
    for mode in modes:
        engine = Engine.load(store, mode=mode)
        tasks = {name: files_below(root / name, SUFFIXES) for name in engine.tasks if (root / name).is_dir()}
        for size in sizes:
            yield measure(engine, mode, size, tasks)


def main() -> None:
    """Prints a line for every mode and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("data", type=Path)
    parser.add_argument("--mode", choices=MODE_NAMES, action="append", help="all of them where not given")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="images in a request")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    found = []
    for one in measure_all(options.store, options.data, options.mode or MODE_NAMES, options.sizes):
        found.append(one)
        print(
            f"{one.mode}, {one.size} together: {one.images} images, task right {one.task_right:.3f},"
            f" accuracy {one.accuracy:.3f}, {one.passes:.2f} passes",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
