"""The figures of a run, as they are recorded in `benchmarks/results/real_demo.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.from_packages.commands import CALIBRATED_MODES, MODES
from examples.from_packages.recorded import average, of_mode
from examples.real_demo.tasks import TASKS

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
        "average": {name: average(plain, name) for name in KNOWN},
        "modes": {mode: of_mode(plain, mode) for mode in MODES},
        "calibrated": {mode: of_mode(calibrated, mode) for mode in CALIBRATED_MODES},
        "alike": {
            name: {mode: of_mode(report, mode) for mode in MODES}
            | {"tasks": list(report["tasks"]), "individual": average(report, "individual")}
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
