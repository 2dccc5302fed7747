"""The figures of a run, as they are recorded in `benchmarks/results/real_demo.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.real_demo.serving import CALIBRATED_MODES, MODES
from examples.real_demo.tasks import TASKS

ROUTED = ("accuracy", "normalised_accuracy", "router_accuracy", "mean_passes")
KNOWN = ("individual", "tsv_c", "tsv_m", "pretrained")


def figures(
    out: Path, plain: Any, calibrated: Any, alike: Mapping[str, Any], milliseconds: Mapping[str, Any]
) -> dict[str, Any]:
    """What the documentation says of the run in the folder `out`.

    `plain` and `calibrated` are the reports of `mass-serve eval` on the store before and after, `alike` those
    on stores of the tasks that were fine-tuned in one way, by its name.
    """
    return {
        "tasks": {task.name: _task(out, task.name, plain) for task in TASKS},
        "average": {name: _average(plain, name) for name in KNOWN},
        "modes": {mode: _modes(plain, mode) for mode in MODES},
        "calibrated": {mode: _modes(calibrated, mode) for mode in CALIBRATED_MODES},
        "alike": {
            name: {mode: _modes(report, mode) for mode in MODES}
            | {"tasks": list(report["tasks"]), "individual": _average(report, "individual")}
            for name, report in alike.items()
        },
        "milliseconds": milliseconds,
    }


def _task(out: Path, task: str, report: Any) -> dict[str, Any]:
    measured = json.loads((out / "measured" / f"{task}.json").read_text())
    return {
        "images": report["tasks"][task]["images"],
        "logistic_regression": measured["logistic_regression"],
        "transformers": measured["fine_tuned"],
        **report["tasks"][task]["baselines"],
        **{mode: report["methods"][mode]["tasks"][task]["accuracy"] for mode in MODES},
    }


def _average(report: Any, name: str) -> float | None:
    value: float | None = report["average"]["baselines"][name]
    return value


def _modes(report: Any, mode: str) -> dict[str, Any]:
    average = report["methods"][mode]["average"]
    return {name: average[name] for name in ROUTED} | {"interval": average["intervals"]["accuracy"]}
