"""The tables of `make real-demo`: where its pictures come from, and the figures of the recorded run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.demo_tables import modes_table, sources_table, three
from docs.markup import code, table
from examples.from_packages.commands import MODES
from examples.real_demo.packages import PACKAGES
from examples.real_demo.tasks import TASKS

RECORDED = Path(__file__).parents[1] / "benchmarks" / "results" / "real_demo.json"
KNOWN = ("individual", "tsv_c")


def real_sources_table() -> str:
    """The packages with what is taken from them."""
    return sources_table(PACKAGES)


def real_tasks_table() -> str:
    """A row a task, and the averages: accuracy before and after fine-tuning, task known, and by mode."""
    run = _recorded()
    head = (
        "task",
        "images",
        "fine-tuned",
        "classifier alone",
        "individual",
        "TSV-C, task known",
        *map(code, MODES),
    )
    ranks = {task.name: task.lora_rank for task in TASKS}
    rows = [_task_row(name, ranks[name], task) for name, task in run["tasks"].items()]
    columns = ("logistic_regression", *KNOWN, *MODES)
    means = [sum(task[name] for task in run["tasks"].values()) / len(rows) for name in columns]
    images = sum(task["images"] for task in run["tasks"].values())
    return table(head, [*rows, ("average", f"{images:,}", "", *map(three, means))])


def real_modes_table() -> str:
    """A row a mode, and what the models are without one (see `modes_table`)."""
    return modes_table(_recorded(), MODES, "image")


def real_alike_table() -> str:
    """A row for each way of fine-tuning and what the modes make of a store of its tasks alone."""
    alike = _recorded()["alike"]
    head = ("fine-tuned by", "tasks", "individual", *(f"{code(mode)}, router right" for mode in MODES))
    rows = [
        (name, ", ".join(map(code, some["tasks"])), three(some["individual"]), *_pairs(some))
        for name, some in alike.items()
    ]
    return table(head, rows)


def _pairs(some: Any) -> list[str]:
    figures = (some[mode] for mode in MODES)
    return [f"{three(one['accuracy'])}, {three(one['router_accuracy'])}" for one in figures]


def _recorded() -> Any:
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def _task_row(name: str, rank: int | None, task: Any) -> tuple[str, ...]:
    how = f"LoRA, rank {rank}" if rank else "all weights"
    figures = (task[column] for column in ("logistic_regression", *KNOWN, *MODES))
    return (code(name), str(task["images"]), how, *map(three, figures))
