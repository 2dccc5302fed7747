"""Accuracy and size by the rule that chooses ranks: `python -m benchmarks.ranks MODELS DATA [--json FILE]`.

MODELS is what `make demo` leaves in `.demo`, or `python -m examples.suites` in a suite's folder:
`pretrained`, `tasks/<name>`, and `heads/<name>.safetensors` and `labels/<name>.json` where a model has them
not itself. DATA is what `mass-serve eval` takes. A store of the tasks that are in both is built for every
rule and measured with the task known and, in the modes `exact` and `paper`, unknown. Blocks are of 16 bits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.evaluation import EvaluationData, Options, files_of, with_individual_accuracies
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.figures import known_mean
from mass_serve.evaluation.methods import Routed
from mass_serve.evaluation.variants import Variants
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.store import Store
from mass_serve.router import ModeName

RULES: tuple[dict[str, Any], ...] = (
    {"compression_ratio": 1 / 16},
    {"compression_ratio": 1 / 8},
    {"compression_ratio": 1 / 4},
    {"rank": 8},
    {"rank": 16},
    {"rank": 32},
    {"energy": 0.5},
    {"energy": 0.7},
    {"energy": 0.8},
    {"energy": 0.9},
    {"energy": 0.95},
    {"budget": "0.2x"},
    {"budget": "0.35x"},
    {"budget": "0.7x"},
    {"budget": "1.3x"},
)
MODES: tuple[ModeName, ...] = ("exact", "paper")
TASK_KNOWN = "tsv_c"
SET_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class Row:
    """What a rule gives: sizes in shares of the encoder's bytes, average accuracies over the tasks."""

    rule: dict[str, Any]
    blocks: float  # u, s and vh of all tasks
    store_bytes: int
    ranks: tuple[int, float, int]  # the least, the median and the largest of all tasks and matrices
    energy_kept: float  # average over the tasks
    individual: float | None  # None: not measured
    task_known: float
    exact: float
    exact_share: float | None  # of the individual accuracy, the average over the tasks
    paper: float | None  # None: not measured


def inputs_of(models: Path, data: Path) -> list[TaskInput]:
    """The tasks of a folder that training left, as far as there is data of them."""
    measured_on = {entry.name.removesuffix(".jsonl") for entry in data.iterdir()}
    return [
        TaskInput(
            folder.name,
            folder,
            head=_if_there(models / "heads" / f"{folder.name}.safetensors"),
            labels=_if_there(models / "labels" / f"{folder.name}.json"),
        )
        for folder in sorted((models / "tasks").iterdir())
        if folder.name in measured_on
    ]


def _if_there(file: Path) -> Path | None:
    return file if file.exists() else None


def measured(
    rule: dict[str, Any],
    store: Store,
    data: Path,
    modes: Sequence[ModeName] = MODES,
    most: int | None = None,
) -> Row:
    """Measures one store in `modes`, `exact` among them, by at most so many inputs of a task."""
    loaded = load_store(store.files.url, torch.device("cpu"), torch.float32, "exact")
    variants = Variants(loaded, Execution.LOW_RANK, SET_CACHE_BYTES)
    labels = of_whole_inputs({task.name: task for task in store.manifest.tasks})
    options = Options(baselines=[TASK_KNOWN], methods=[Routed(mode, variants.engine(mode)) for mode in modes])
    engine = variants.engine()
    report = evaluate(engine, EvaluationData(data, labels, files_of(engine), most=most), options=options)
    known = report["average"]["baselines"][TASK_KNOWN]
    assert known is not None
    ranks = [rank for task in store.manifest.tasks for rank in store.layout.ranks_of(task).values()]
    manifest, methods = store.manifest, report["methods"]
    return Row(
        rule=rule,
        blocks=_block_bytes(store) / sum(tensor.nbytes for tensor in store.load_pretrained().values()),
        store_bytes=sum(store.files.size(path) for path in manifest.all_files()),
        ranks=(min(ranks), statistics.median(ranks), max(ranks)),
        energy_kept=statistics.mean(task.energy_kept or 0.0 for task in manifest.tasks),
        individual=known_mean([task.individual_accuracy for task in manifest.tasks]),
        task_known=known,
        exact=methods["exact"]["average"]["accuracy"],
        exact_share=methods["exact"]["average"]["normalised_accuracy"],
        paper=methods["paper"]["average"]["accuracy"] if "paper" in methods else None,
    )


def _block_bytes(store: Store) -> int:
    return sum(
        rank * store.layout_of(task).triplet_bytes[name]
        for task in store.manifest.tasks
        for name, rank in store.layout.ranks_of(task).items()
    )


def compared(models: Path, data: Path, rules: Sequence[dict[str, Any]]) -> list[Row]:
    """Builds and measures a store for every rule, printing each as it is known."""
    pretrained = models / "pretrained"
    tasks = with_individual_accuracies(pretrained, inputs_of(models, data), BuildOptions(), data)
    rows = []
    for rule in rules:
        with tempfile.TemporaryDirectory() as folder:
            store = build(pretrained, tasks, Path(folder) / "store", BuildOptions(format="bfloat16", **rule))
            rows.append(measured(rule, store, data))
        print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Row) -> str:
    ((name, value),) = row.rule.items()
    least, median, largest = row.ranks
    return (
        f"| `--{name.replace('_', '-')} {value}` | {row.blocks:.2f} | {row.store_bytes / 1e6:.1f} | "
        f"{least}, {median:g}, {largest} | {row.energy_kept:.2f} | {row.task_known:.3f} | {row.exact:.3f} | "
        f"{row.paper:.3f} |"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.ranks")
    parser.add_argument("models", type=Path, metavar="MODELS")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = compared(options.models, options.data, RULES)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
