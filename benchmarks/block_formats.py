"""Accuracy and size by the format of blocks: `python -m benchmarks.block_formats MODELS DATA [--json FILE]`.

MODELS and DATA are those of `benchmarks.ranks`; `--pretrained` names an encoder that is elsewhere. A store of
the tasks that are in both is built for every format and rank, or for those that are named, as in `--choice
int4:2/T`, and measured with the task known and, in the modes `exact` and `paper`, unknown. The blocks' bytes
are those of u, s and vh, over those of the encoder in 16 bits. In `exact` alone, `--tuning FOLDER` measures
once more when that has calibrated the store, and `--most N` by at most N inputs of a task.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.measure import CPU, UNROUTED
from benchmarks.ranks import MODES, SET_CACHE_BYTES, Row, inputs_of, measured
from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.evaluation import EvaluationData, Options, files_of, with_individual_accuracies
from mass_serve.evaluation.calibrate import calibrate
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.progress import silent
from mass_serve.model_store.store import Store

FORMATS: tuple[dict[str, Any], ...] = (
    {"format": "bfloat16", "compression_ratio": "1/T"},
    {"format": "int8", "compression_ratio": "1/T"},
    {"format": "int4", "compression_ratio": "1/T"},
    {"format": "bfloat16", "compression_ratio": "2/T"},
    {"format": "int4", "compression_ratio": "2/T"},
)
BYTES_OF_16_BITS = 2


@dataclass(frozen=True)
class Asked:
    """What is built and measured."""

    pretrained: Path
    tasks: list[TaskInput]
    data: Path
    tuning: Path | None
    most: int | None

    def row(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Builds and measures a store of one choice."""
        with tempfile.TemporaryDirectory() as folder:
            store = build(self.pretrained, self.tasks, Path(folder) / "store", BuildOptions(**choice))
            modes = MODES if self.most is None and self.tuning is None else MODES[:1]
            row = measured(choice, store, self.data, modes, self.most)
            figures = asdict(row) | {"blocks_over_16_bit_encoder": _over_16_bits(store, row)}
            if self.tuning is not None:
                figures["calibrated_share"] = _calibrated_share(store, self.tuning, self.data)
        return figures


def _over_16_bits(store: Store, row: Row) -> float:
    pretrained = store.load_pretrained().values()
    size = sum(tensor.nbytes for tensor in pretrained)
    return row.blocks * size / (BYTES_OF_16_BITS * sum(tensor.numel() for tensor in pretrained))


def _calibrated_share(store: Store, tuning: Path, data: Path) -> float:
    """The share of the individual accuracy that `exact` has once it saw inputs whose tasks nobody says."""
    calibrate(store.files.url, tuning, UNROUTED, CPU, silent)
    engine = Engine(
        load_store(store.files.url, CPU, torch.float32, "exact"), Execution.LOW_RANK, SET_CACHE_BYTES
    )
    inputs = EvaluationData(data, of_whole_inputs(engine.tasks), files_of(engine))
    average = evaluate(engine, inputs, options=Options(baselines=()))["average"]
    share = average["normalised_accuracy"]
    assert share is not None  # every task was measured with its own model
    return share


def _line(row: dict[str, Any]) -> str:
    named = ("blocks_over_16_bit_encoder", "task_known", "exact", "paper", "exact_share", "calibrated_share")
    return f"{row['rule']}: " + ", ".join(
        f"{name} {row[name]:.4f}" for name in named if row.get(name) is not None
    )


def choice_of(text: str) -> dict[str, Any]:
    """The choice that `int4:2/T` names, for one."""
    block_format, _, ratio = text.partition(":")
    return {"format": block_format, "compression_ratio": ratio}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.block_formats")
    parser.add_argument("models", type=Path, metavar="MODELS")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--pretrained", type=Path, metavar="PATH", help="by default MODELS/pretrained")
    parser.add_argument("--choice", type=choice_of, action="append", metavar="FORMAT:N/T")
    parser.add_argument("--tuning", type=Path, metavar="FOLDER")
    parser.add_argument("--most", type=int, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    pretrained = given.pretrained or given.models / "pretrained"
    tasks = inputs_of(given.models, given.data)
    if given.most is None:  # of a part of the inputs nothing says what each model does alone
        tasks = with_individual_accuracies(pretrained, tasks, BuildOptions(), given.data)
    asked = Asked(pretrained, tasks, given.data, given.tuning, given.most)
    rows = []
    for choice in given.choice or FORMATS:
        rows.append(asked.row(choice))
        print(_line(rows[-1]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
