"""The paper's mode by the method that merges its base.

    python -m benchmarks.merged_bases SUITE... [--json FILE]

A SUITE is a folder with a `store` and, in `evaluation`, data as `mass-serve eval` takes them. First passes
run on the merged base of every method, as `build --merged-base METHOD` stores it, and on the pretrained
weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.evaluation import EvaluationData, Options, files_of
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.methods import Routed
from mass_serve.merging.methods.task_arithmetic import moved
from mass_serve.model_store.merged_base import MERGEABLE
from mass_serve.model_store.store import Store
from mass_serve.model_store.stored_vectors import merged_changes, stored_vectors
from mass_serve.router import PAPER

PRETRAINED = "pretrained"
SET_CACHE_BYTES = 256 << 20


def first_passes(store: Store) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The weights of the first pass by the name of the method, and the pretrained ones."""
    pretrained = store.load_pretrained()
    with stored_vectors(store, store.manifest.routed_tasks) as vectors:
        for name, method in MERGEABLE.items():
            changes = merged_changes(method, vectors)
            weights = pretrained.items()
            yield name, {key: moved(weight, changes[key], method.coefficient) for key, weight in weights}
    yield PRETRAINED, pretrained


def measured(suite: Path) -> dict[str, dict[str, float]]:
    """Averages over the tasks, by what the first pass runs on."""
    place = str(suite / "store")
    store, loaded = Store.open(place), load_store(place, torch.device("cpu"), torch.float32, PAPER)
    methods = [
        Routed(
            name,
            Engine(
                replace(loaded, first_pass={key: weights[key].float() for key in loaded.first_pass}),
                Execution.LOW_RANK,
                SET_CACHE_BYTES,
            ),
        )
        for name, weights in first_passes(store)
    ]
    labels = of_whole_inputs({task.name: task for task in store.manifest.tasks})
    engine = methods[0].engine
    data = EvaluationData(suite / "evaluation", labels, files_of(engine))
    report = evaluate(engine, data, options=Options(baselines=[], methods=methods))
    averages = {one.name: report["methods"][one.name]["average"] for one in methods}
    return {
        name: {
            "accuracy": average["accuracy"],
            "router_accuracy": average["router_accuracy"],
            "task_survival": average["task_survival"],
        }
        for name, average in averages.items()
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.merged_bases")
    parser.add_argument("suites", nargs="+", type=Path, metavar="SUITE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    found = {}
    for suite in given.suites:
        found[suite.name] = measured(suite)
        for name, figures in found[suite.name].items():
            print(f"{suite.name} {name}: {figures}", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
