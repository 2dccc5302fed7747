"""Accuracy against the number of tasks and against the rank, of a store as if it had not been calibrated.

    python -m benchmarks.accuracy.curves STORE DATA [--json FILE]

A calibration holds for the tasks and the ranks that it was made with, so that no point but one would have it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.engine.options import GIB
from mass_serve.evaluation import EvaluationData, Options, files_of
from mass_serve.evaluation.baselines import TSV_C
from mass_serve.evaluation.curves import Curves
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.variants import Variants
from mass_serve.merging.methods import TSV_M


def measured(store: str, data: Path) -> Curves:
    """Both curves, the ranks up to the store's."""
    loaded = load_store(store, torch.device("cpu"), torch.float32, "exact", calibrated=False)
    variants = Variants(loaded, Execution.LOW_RANK, GIB)
    engine = variants.engine()
    inputs = EvaluationData(data, of_whole_inputs(engine.tasks), files_of(engine))
    options = Options(baselines=(TSV_C, TSV_M.name), curves=variants)
    curves = evaluate(engine, inputs, options=options)["curves"]
    assert curves is not None
    return curves


def main() -> None:
    """Prints a line for every point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    asked = parser.parse_args()
    curves = measured(asked.store, asked.data)
    for point in curves["tasks"]:
        print(f"{point['tasks']} tasks: {point['mass']['accuracy']:.3f}")
    for at_rank in curves["rank"]:
        print(f"rank {at_rank['rank']}: {at_rank['mass']['accuracy']:.3f}")
    if asked.json:
        asked.json.write_text(json.dumps(curves, indent=2) + "\n")


if __name__ == "__main__":
    main()
