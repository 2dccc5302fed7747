"""Time of `exact` by the format of blocks and their rank, as ratios within one run.

    python -m benchmarks.block_format_times MODELS DATA [--pretrained PATH] [--json FILE] [--rounds N]

MODELS, DATA and `--pretrained` are those of `benchmarks.block_formats`. What is timed are inputs of all tasks
in turn, one at a time and in a batch, from what is decoded to an answer. Times are the least processor
seconds over rounds in which the stores take turns, each over that of bfloat16 at 1/T.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.ranks import SET_CACHE_BYTES, inputs_of
from benchmarks.timing import minima
from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.evaluation import EvaluationData, files_of
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.index import Selection
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build

CHOICES: tuple[dict[str, Any], ...] = (
    {"format": "bfloat16", "compression_ratio": "1/T"},
    {"format": "int4", "compression_ratio": "1/T"},
    {"format": "bfloat16", "compression_ratio": "2/T"},
    {"format": "int4", "compression_ratio": "2/T"},
)
INPUTS = 32


def engine_of(pretrained: Path, models: Path, data: Path, choice: dict[str, Any]) -> Engine:
    """An engine of a store of the tasks, which is in memory alone when this returns."""
    with tempfile.TemporaryDirectory() as folder:
        store = build(pretrained, inputs_of(models, data), Path(folder) / "store", BuildOptions(**choice))
        loaded = load_store(store.files.url, torch.device("cpu"), torch.float32, "exact")
        return Engine(loaded, Execution.LOW_RANK, SET_CACHE_BYTES)


def first_inputs(engine: Engine, data: Path) -> list[Any]:
    """INPUTS inputs as `Engine.classify_batch` takes them, of all tasks in turn."""
    files = files_of(engine)
    found = EvaluationData(data, of_whole_inputs(engine.tasks), files)
    each = -(-INPUTS // len(found.tasks))
    inputs = (next(found.batches(Selection(task, 0, limit=each))).inputs for task in found.tasks)
    return [files.query(one) for of_place in zip(*inputs, strict=True) for one in of_place][:INPUTS]


def answering(engine: Engine, queries: list[Any], together: int) -> Callable[[], object]:
    """Answers all queries, so many at a time."""
    batches = [queries[start : start + together] for start in range(0, len(queries), together)]
    return partial(_answer, engine, batches)


def _answer(engine: Engine, batches: list[list[Any]]) -> None:
    for batch in batches:
        engine.classify_batch(batch).all_answers()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.block_format_times")
    parser.add_argument("models", type=Path, metavar="MODELS")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--pretrained", type=Path, metavar="PATH", help="by default MODELS/pretrained")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)  # one thread's seconds do not depend on what else the machine does
    pretrained = given.pretrained or given.models / "pretrained"
    engines = {
        f"{choice['format']} {choice['compression_ratio']}": engine_of(
            pretrained, given.models, given.data, choice
        )
        for choice in CHOICES
    }
    queries = first_inputs(next(iter(engines.values())), given.data)
    recorded = {}
    for together in (1, INPUTS):
        times = minima(
            {name: answering(engine, queries, together) for name, engine in engines.items()}, given.rounds
        )
        first = next(iter(times.values()))
        ratios = {name: seconds / first for name, seconds in times.items()}
        recorded[f"{together} at a time"] = {"together": together, "seconds": first, **ratios}
        print(f"{together} at a time: {first:.2f} s, {ratios}", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(recorded, indent=2) + "\n")


if __name__ == "__main__":
    main()
