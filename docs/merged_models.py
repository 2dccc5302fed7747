"""The table of one merged model by each method, on the demo, from the recorded run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.demo_tables import three
from docs.markup import code, table
from mass_serve.evaluation.baselines import TITLES

RECORDED = Path(__file__).parents[1] / "benchmarks" / "results" / "merged_models_demo.json"


def merged_models_table() -> str:
    """A row for each method, the most accurate first."""
    recorded = json.loads(RECORDED.read_text())
    in_order = sorted(recorded.items(), key=lambda item: -item[1]["average"]["accuracy"])
    head = ("method", "", "accuracy", "95 % interval", "coefficients that were taken")
    return table(head, [_row(name, one) for name, one in in_order])


def _row(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    average, searched = one["average"], one["searched"]
    used = set() if searched is None else {value for values in searched["used"].values() for value in values}
    interval = " to ".join(map(three, average["interval"]))
    taken = ", ".join(f"{value:g}" for value in sorted(used)) or "its own"
    return code(name), TITLES[name], three(average["accuracy"]), interval, taken
