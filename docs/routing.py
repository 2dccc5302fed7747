"""The table of `python -m benchmarks.routing`: each suite with constants that were chosen on the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.demo_tables import three
from docs.markup import code, table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "routing.json"


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
