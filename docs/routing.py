"""The tables of `python -m benchmarks.routing` and `python -m benchmarks.late_token`.

The first has each suite with constants that were chosen on the others, the second what `build` takes late
energies of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.demo_tables import three
from docs.markup import code, table

FOLDER = Path(__file__).parents[1] / "benchmarks" / "results"
RESULTS = FOLDER / "routing.json"
LATE_TOKEN = FOLDER / "late_token.json"


def routing_table() -> str:
    """A row a suite and mode: the share of the accuracy with the task named, and how often it is right."""
    head = (
        "suite",
        "tasks",
        "inputs",
        "task named",
        "mode",
        "share of it, task unknown",
        "95 %",
        "task right",
        "with labels",
    )
    return table(head, list(_rows(json.loads(RESULTS.read_text())["suites"])))


def _rows(suites: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, suite in suites.items():
        first = (code(name), str(len(suite["tasks"])), str(suite["inputs"]), three(suite["task_known"]))
        labelled = three(suite["labelled_task_right"])
        for number, (mode, own) in enumerate(suite["modes"].items()):
            low, high = own["interval"]
            yield (
                *(first if number == 0 else ("",) * len(first)),
                code(mode),
                three(own["normalised_accuracy"]),
                f"{three(low)} to {three(high)}",
                three(own["task_right"]),
                labelled if number == 0 else "",
            )


def late_token_table() -> str:
    """A row a suite: what each token's energies vary by, which is taken, and how often each is right."""
    head = ("suite", "tasks", "class token varies", "mean", "taken", "class token right", "mean")
    rows = [
        (
            code(name),
            str(len(own["tasks"])),
            *(three(own["variation"][token]) for token in ("class", "mean")),
            own["chosen"],
            *(three(own["right"][token]) for token in ("class", "mean")),
        )
        for name, own in json.loads(LATE_TOKEN.read_text()).items()
    ]
    return table(head, rows)
