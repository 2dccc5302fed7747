"""What the engine adds to the passes through its encoder, on the demo store, as ratios within one run.

    python -m benchmarks.hot_path [--rounds N] [--mode MODE] [--dtype DTYPE]... [--json FILE]

A pass is one through a dense model of the same sizes, in the same dtype: the base products of a pass of a
batch of B are those of B rows whatever experts they have, so that passes are counted in dense ones. What
PyTorch takes to begin an operation is in both; the demo's encoder is so small that it is most of a pass of
one image. In the time of an answer, and not in that of its passes, are the router, the heads, and what the
experts add to the second pass; of an answer whose task was named, the head and the experts alone. All times
are processor seconds of one thread, the least of many rounds, and batches and passes take turns. Takes a
minute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
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
TITLES = ("passes", "time, in passes", "over its passes", "named, in passes")


def queries(engine: Engine, count: int) -> list[Query]:
    """So many of the demo's sample images, one after the other and then from the first again."""
    images = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.png"))]
    return [Query(engine.preprocessing.preprocess(image)) for image in islice(cycle(images), count)]


def variants(engine: Engine, asked: list[Query], named: list[Query]) -> dict[str, Callable[[], object]]:
    """Answering a batch, the same with its tasks named, and one dense pass over it."""
    weights = DenseWeights(engine.bank.pretrained)

    @torch.inference_mode()
    def dense() -> object:
        return run(engine.architecture, weights, engine._inputs(asked)).embedding

    return {
        "answers": lambda: engine.classify_batch(asked),
        "named": lambda: engine.classify_batch(named),
        "pass": dense,
    }


def over_passes(engine: Engine, count: int, rounds: int) -> dict[str, float]:
    """The time of a batch over that of one pass and of its passes, and how many those are.

    `named_over_one_pass` is the time where each image's task is named, which is one pass.
    """
    asked = queries(engine, count)
    answers = engine.classify_batch(asked).all_answers()
    passes = sum(answer.passes for answer in answers) / count
    named = [replace(query, candidates=(one.task,)) for query, one in zip(asked, answers, strict=True)]
    seconds = minima(variants(engine, asked, named), rounds)
    over_one = seconds["answers"] / seconds["pass"]
    return {
        "passes": passes,
        "over_one_pass": over_one,
        "over_its_passes": over_one / passes,
        "named_over_one_pass": seconds["named"] / seconds["pass"],
    }


def main() -> None:
    """Measures and prints the ratios."""
    parser = argparse.ArgumentParser(description="What the engine adds to its passes, on the demo store.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--mode", choices=MODE_NAMES, default="exact")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), action="append", help="default: both")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'dtype':8} {'batch':>5} " + " ".join(f"{title:>19}" for title in TITLES))
    for dtype in arguments.dtype or ("float32", "bfloat16"):
        engine = Engine.load(demo_store(), device="cpu", mode=arguments.mode, dtype=dtype)
        found[dtype] = {}
        for size in BATCHES:
            # The smaller a batch is, the more of them are needed for as steady a figure.
            one = found[dtype][str(size)] = over_passes(engine, size, arguments.rounds * (32 // size))
            print(f"{dtype:8} {size:5} " + " ".join(f"{value:19.2f}" for value in one.values()))
    if arguments.json is not None:
        content = {"mode": arguments.mode, "dtypes": found}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
