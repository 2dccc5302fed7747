"""What an input costs among T tasks, over a dense pass, and how often its task is found.

    python -m benchmarks.tasks.cost [--json FILE] [--tasks 2,8,20,100,500] [--work FOLDER]

Costs are of noise in stores of `benchmarks.random_adapters`: LoRA-like tasks of rank 16 over CLIP ViT-B/32.
There no task is likelier than another, so that in `exact` every input gets both of its second passes, and no
two inputs of a batch need share a task: it costs no input more. They are processor seconds of one thread, the
least of several rounds in which all variants take turns, over those of one dense pass over the same batch.

What is right is counted on the tasks of `benchmarks.tasks.aligned`, with late evidence for the likeliest
tasks alone, as it is served, and for all of them. Takes an hour of one core and 4 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.random_adapters import random_adapter_store
from benchmarks.random_models import VIT_B_32
from benchmarks.tasks.aligned import AlignedTasks
from benchmarks.timing import minima
from mass_serve.backbone import DenseWeights, run
from mass_serve.engine import Engine, Query
from mass_serve.engine.execution import Execution
from mass_serve.router import ModeName

MODES: tuple[ModeName, ...] = ("exact", "balanced")
BATCHES = (1, 16)
RANK, ALIGNED_RANK = 16, 8
INPUTS = 400  # that are routed in all, at least two of each task


def costs(engine: Engine, rounds: int) -> dict[str, float]:
    """The cost of an input over that of a dense pass, by mode and size of the batch: `exact_16`."""
    size = engine.architecture.patches.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (max(BATCHES), 3, size, size), generator=generator, dtype=torch.uint8)
    weights = DenseWeights(engine.bank.pretrained)

    @torch.inference_mode()
    def dense(count: int) -> object:
        return run(engine.architecture, weights, engine._inputs([Query(one) for one in pixels[:count]]))

    variants: dict[str, Callable[[], object]] = {}
    for count in BATCHES:
        variants[f"dense_{count}"] = partial(dense, count)
        for mode in MODES:
            queries = [Query(one, mode=mode) for one in pixels[:count]]
            variants[f"{mode}_{count}"] = partial(engine.classify_batch, queries)
    seconds = minima(variants, rounds)
    return {
        f"{mode}_{count}": seconds[f"{mode}_{count}"] / seconds[f"dense_{count}"]
        for mode in MODES
        for count in BATCHES
    }


@torch.inference_mode()
def right(tasks: int) -> dict[str, float]:
    """The share of inputs whose task is found, by mode; `exact_all` with late evidence for every task."""
    aligned, count = AlignedTasks(ALIGNED_RANK), max(2, INPUTS // tasks)
    loaded = aligned.loaded(tasks, "exact")

    def share(engine: Engine, mode: ModeName) -> float:
        found = 0
        for task in range(tasks):
            pixels, _ = aligned.inputs(task, count)
            answers = engine.classify_batch([Query(one, mode=mode) for one in pixels]).all_answers()
            found += sum(answer.task == f"task{task}" for answer in answers)
        return found / (count * tasks)

    served, measuring_all = (
        Engine(replace(loaded, narrows=narrows), Execution.LOW_RANK, 1 << 30) for narrows in (True, False)
    )
    shares: dict[str, float] = {mode: share(served, mode) for mode in MODES}
    return {**shares, "exact_all": share(measuring_all, "exact"), "inputs": count * tasks}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--tasks", default="2,8,20,100,500", help="numbers of tasks, with commas between")
    parser.add_argument(
        "--work", type=Path, help="a folder for the stores, which are kept there for the next time"
    )
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        found: dict[str, object] = {"torch": torch.__version__, "rank": RANK, "aligned_rank": ALIGNED_RANK}
        for tasks in map(int, asked.tasks.split(",")):
            store = work / f"store{tasks}"
            if not (store / "manifest.json").exists():
                random_adapter_store(store, tasks, RANK, VIT_B_32)
            engine = Engine.load(str(store), dtype="float32", mode="exact")
            found[str(tasks)] = {"cost": costs(engine, asked.rounds), "right": right(tasks)}
            del engine
            print(tasks, json.dumps(found[str(tasks)]), flush=True)
            if asked.json is not None:
                asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
