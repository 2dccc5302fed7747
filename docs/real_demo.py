"""The tables of `make real-demo`: where its pictures come from, and the figures of the recorded run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.markup import code, table
from examples.from_packages.commands import MODES
from examples.real_demo.packages import PACKAGES
from examples.real_demo.tasks import TASKS

RECORDED = Path(__file__).parents[1] / "benchmarks" / "results" / "real_demo.json"
KNOWN = ("individual", "tsv_c")


def real_sources_table() -> str:
    """The packages with what is taken from them."""
    rows = [(f"{p.name} {p.version}".strip(), p.registry, p.licence, p.holds) for p in PACKAGES]
    return table(("package", "from", "licence", "what is taken"), rows)


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
    rows = [_task_row(task.name, task.lora_rank, run["tasks"][task.name]) for task in TASKS]
    columns = ("logistic_regression", *KNOWN, *MODES)
    means = [sum(task[name] for task in run["tasks"].values()) / len(TASKS) for name in columns]
    images = sum(task["images"] for task in run["tasks"].values())
    return table(head, [*rows, ("average", f"{images:,}", "", *map(_three, means))])


def real_modes_table() -> str:
    """A row a mode: accuracy with the task unknown, what it costs, and the same after calibration."""
    run = _recorded()
    head = (
        *("mode", "accuracy", "95 %", "share of individual", "router right", "passes"),
        *("ms, one image", "ms, of 32", "calibrated: accuracy", "share", "router right", "passes"),
    )
    rows = [_mode_row(mode, run) for mode in MODES]
    known = [_timed_row(name, run) for name in ("task named", "individual")]
    return table(head, [*rows, *known])


def real_alike_table() -> str:
    """A row for each way of fine-tuning and what the modes make of a store of its tasks alone."""
    alike = _recorded()["alike"]
    head = ("fine-tuned by", "tasks", "individual", *(f"{code(mode)}, router right" for mode in MODES))
    rows = [
        (name, ", ".join(map(code, some["tasks"])), _three(some["individual"]), *_pairs(some))
        for name, some in alike.items()
    ]
    return table(head, rows)


def _pairs(some: Any) -> list[str]:
    figures = (some[mode] for mode in MODES)
    return [f"{_three(one['accuracy'])}, {_three(one['router_accuracy'])}" for one in figures]


def _recorded() -> Any:
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def _task_row(name: str, rank: int | None, task: Any) -> tuple[str, ...]:
    how = f"LoRA, rank {rank}" if rank else "all weights"
    figures = (task[column] for column in ("logistic_regression", *KNOWN, *MODES))
    return (code(name), str(task["images"]), how, *map(_three, figures))


def _mode_row(mode: str, run: Any) -> tuple[str, ...]:
    plain, calibrated = run["modes"][mode], run["calibrated"].get(mode)
    interval = " to ".join(map(_three, plain["interval"]))
    before = (_three(plain["accuracy"]), interval, *_routed(plain), *_times(mode, run))
    after = (_three(calibrated["accuracy"]), *_routed(calibrated)) if calibrated else [""] * 4
    return (code(mode), *before, *after)


def _timed_row(name: str, run: Any) -> tuple[str, ...]:
    average = run["average"]["tsv_c" if name == "task named" else "individual"]
    share = average / run["average"]["individual"]
    return (name, _three(average), "", _three(share), "", "1.00", *_times(name, run), *[""] * 4)


def _routed(figures: Any) -> tuple[str, str, str]:
    share, router = figures["normalised_accuracy"], figures["router_accuracy"]
    return _three(share), _three(router), f"{figures['mean_passes']:.2f}"


def _times(name: str, run: Any) -> tuple[str, str]:
    one, many = (run["milliseconds"][count][name] for count in ("1", "32"))
    return f"{one:.1f}", f"{many:.1f}"


def _three(value: float) -> str:
    return f"{value:.3f}"
