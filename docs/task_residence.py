"""The table of `benchmarks.tasks.residence`: a row a number of tasks."""

from __future__ import annotations

import json
from pathlib import Path

from docs.markup import table

RECORDED = Path(__file__).parents[1] / "benchmarks" / "results" / "tasks_residence_cpu.json"
HEAD = (
    *("tasks", "store, GiB", "process, GiB", "of it tensors", "seconds to load"),
    *("with little room: process, GiB", "seconds to load"),
)


def task_residence_table() -> str:
    """The store, and the process that has it loaded with all tasks in memory and with few."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    rows = []
    for tasks in sorted(int(name) for name in recorded if name.isdigit()):
        run = recorded[str(tasks)]
        whole, few = run["all"], run["few"]
        sizes = (run["store_bytes"], whole["resident"], whole["tensors"])
        seconds = f"{whole['load_seconds']:.1f}", f"{few['load_seconds']:.1f}"
        rows.append((str(tasks), *map(_gib, sizes), seconds[0], _gib(few["resident"]), seconds[1]))
    return table(HEAD, rows)


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.2f}"
