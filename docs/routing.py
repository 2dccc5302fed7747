"""The tables of `python -m benchmarks.routing`, `benchmarks.late_token` and `benchmarks.early_layers`.

The first has each suite with constants that were chosen on the others, the second what `build` takes late
energies of, the third what would be gained where early evidence is judged at another place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from docs.demo_tables import three
from docs.markup import code, table

FOLDER = Path(__file__).parents[1] / "benchmarks" / "results"
RESULTS = FOLDER / "routing.json"
LATE_TOKEN = FOLDER / "late_token.json"
EARLY_LAYERS = FOLDER / "early_layers.json"


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


def early_layers_table() -> str:
    """A row a suite and stop: the estimate without data, prices, and what both modes that resume gain."""
    head = (
        *("suite", "would take", "judged at", "varies", "mean price", "begin again"),
        *("early right", "leave in `fast`", "right of those"),
        *("`one_pass` gains", "95 %", "passes", "`fast` gains", "95 %", "passes"),
    )
    suites = json.loads(EARLY_LAYERS.read_text())
    rows = [
        (*((code(name), suite["chosen"]) if number == 0 else ("", "")), *_stop_row(stop, own))
        for name, suite in suites.items()
        for number, (stop, own) in enumerate(suite["stops"].items())
    ]
    return table(head, rows)


def _stop_row(stop: str, own: dict[str, Any]) -> tuple[str, ...]:
    prices, of_those = own["prices"].values(), own["right_of_those"]
    return (
        *(stop, three(own["variation"]), three(mean(prices)), three(own["beyond"])),
        *(three(own["right"]), three(own["leaves"]), "" if of_those is None else three(of_those)),
        *(cell for mode in own["modes"].values() for cell in _gain(mode)),
    )


def _gain(mode: dict[str, Any]) -> tuple[str, str, str]:
    low, high = mode["gain_interval"]
    return three(mode["gain"]), f"{three(low)} to {three(high)}", three(mode["passes"])
