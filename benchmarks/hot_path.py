"""What the engine adds to the passes through its encoder, on the demo store, as ratios within one run.

    python -m benchmarks.hot_path [--rounds N] [--mode MODE] [--dtype DTYPE] [--json FILE]

A pass is one through a dense model of the same sizes, in the same dtype. The demo's encoder is small: what is
done once for each operation, batch or image weighs most there. In the time of an answer, and not in that of
its passes, are the router, the heads, and what the experts add to the second pass. All times are processor
seconds of one thread, the least of many rounds, and batches and passes take turns. Takes half a minute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import torch
from PIL import Image

from benchmarks.timing import minima
from mass_serve.backbone import DenseWeights, run
from mass_serve.engine import Engine, Query
from mass_serve.router import MODE_NAMES
from mass_serve.server.startup import demo_store

SAMPLES = Path(__file__).parents[1] / "server" / "demo_samples"
BATCHES = (1, 8, 32)


def queries(engine: Engine, count: int) -> list[Query]:
    """So many of the demo's sample images, one after the other and then from the first again."""
    images = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.png"))]
    return [Query(engine.preprocessing.preprocess(image)) for image in islice(cycle(images), count)]


def variants(engine: Engine, asked: list[Query]) -> dict[str, Callable[[], object]]:
    """Answering a batch, and one dense pass over it."""
    weights = DenseWeights(engine.bank.pretrained)

    @torch.inference_mode()
    def dense() -> object:
        return run(engine.architecture, weights, engine._inputs(asked)).embedding

    return {"answers": lambda: engine.classify_batch(asked), "pass": dense}


def over_passes(engine: Engine, count: int, rounds: int) -> dict[str, float]:
    """The time of a batch over that of its passes, how many those are, and the time over that of one."""
    asked = queries(engine, count)
    passes = sum(answer.passes for answer in engine.classify_batch(asked).all_answers()) / count
    seconds = minima(variants(engine, asked), rounds)
    over_one = seconds["answers"] / seconds["pass"]
    return {"passes": passes, "over_one_pass": over_one, "over_its_passes": over_one / passes}


def main() -> None:
    """Measures and prints the ratios."""
    parser = argparse.ArgumentParser(description="What the engine adds to its passes, on the demo store.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--mode", choices=MODE_NAMES, default="exact")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine.load(demo_store(), device="cpu", mode=arguments.mode, dtype=arguments.dtype)
    # The smaller a batch is, the more of them are needed for as steady a figure.
    found = {size: over_passes(engine, size, arguments.rounds * (32 // size)) for size in BATCHES}
    print(f"{'batch':>5} {'passes':>7} {'time, in passes':>16} {'over its passes':>16}")
    for size, one in found.items():
        print(f"{size:5} {one['passes']:7.2f} {one['over_one_pass']:16.2f} {one['over_its_passes']:16.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
