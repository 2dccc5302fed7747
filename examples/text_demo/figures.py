"""The figures of a run, as they are recorded in `benchmarks/results/text_demo.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.from_packages.commands import CALIBRATED_MODES, MODES
from examples.from_packages.recorded import average, of_mode
from examples.text_demo.tasks import BASELINES, SAME_TEXTS, TASKS, TWICE_LABELLED

KNOWN = ("individual", *BASELINES)


@dataclass(frozen=True)
class Reports:
    """What `mass-serve eval` said of the store, calibrated too, and of one that has the same texts twice."""

    plain: Any
    calibrated: Any
    same_texts: Any


def figures(
    out: Path, reports: Reports, milliseconds: Mapping[str, Any], memory: Mapping[str, int]
) -> dict[str, Any]:
    """What the documentation says of the run in the folder `out`."""
    plain, calibrated = reports.plain, reports.calibrated
    return {
        "tasks": {task.name: _task(out, task.name, plain) for task in TASKS},
        "average": {name: average(plain, name) for name in KNOWN},
        "modes": {mode: of_mode(plain, mode) for mode in MODES},
        "calibrated": {mode: of_mode(calibrated, mode) for mode in CALIBRATED_MODES},
        "unfamiliar": {"plain": plain["unfamiliar"], "calibrated": calibrated["unfamiliar"]},
        "same_texts": {name: _same(reports.same_texts, name) for name in (TWICE_LABELLED, SAME_TEXTS.name)},
        "milliseconds": milliseconds,
        "bytes": memory,
        "training_seconds": sum(_measured(out, task.name)["seconds"] for task in (*TASKS, SAME_TEXTS)),
    }


def _task(out: Path, task: str, report: Any) -> dict[str, Any]:
    measured = _measured(out, task)
    config = json.loads((out / "tasks" / task / "config.json").read_text())
    return {
        "texts": report["tasks"][task]["images"],
        "labels": len(config["id2label"]),
        "logistic_regression": measured["logistic_regression"],
        "transformers": measured["fine_tuned"],
        **report["tasks"][task]["baselines"],
        **{mode: report["methods"][mode]["tasks"][task]["accuracy"] for mode in MODES},
        "routed_to": report["methods"]["exact"]["routed_to"][task],
    }


def _same(report: Any, task: str) -> dict[str, Any]:
    """How one of two tasks on the same texts is answered, with the task unknown and with all answering."""
    routed = report["methods"]["exact"]
    return {
        "individual": report["tasks"][task]["baselines"]["individual"],
        "exact": routed["tasks"][task]["accuracy"],
        "router_accuracy": routed["tasks"][task]["router_accuracy"],
        "each": report["tasks"][task]["baselines"]["tsv_c"],
        "answered_by": routed["answered_by"][task],
    }


def _measured(out: Path, task: str) -> Any:
    return json.loads((out / "measured" / f"{task}.json").read_text())
