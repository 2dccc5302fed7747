"""The table of `benchmarks.tasks.cost`: a row a number of tasks."""

from __future__ import annotations

import json
from pathlib import Path

from docs.demo_tables import three
from docs.markup import table

RECORDED = Path(__file__).parents[1] / "benchmarks" / "results" / "tasks_cost_cpu.json"
COSTS = ("exact_1", "exact_16", "balanced_1", "balanced_16")
RIGHT = ("exact", "exact_all", "balanced")


def many_tasks_table() -> str:
    """Costs in dense passes, and the share of inputs whose task is found."""
    head = (
        "tasks",
        *(f"`{mode}`, {batch}" for mode in ("exact", "balanced") for batch in ("alone", "of 16")),
        *("found by `exact`", "with late evidence for every task", "by `balanced`"),
    )
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    numbers = sorted(int(name) for name in recorded if name.isdigit())
    runs = [(tasks, recorded[str(tasks)]) for tasks in numbers]
    return table(
        head,
        [
            (
                str(tasks),
                *(three(run["cost"][name]) for name in COSTS),
                *(three(run["right"][name]) for name in RIGHT),
            )
            for tasks, run in runs
        ],
    )
