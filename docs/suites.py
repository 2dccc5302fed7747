"""The tables of `python -m benchmarks.accuracy`: how right the answers are on every suite."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.demo_tables import three
from docs.markup import code, table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
# From the easiest drawn one to the real ones; those that were not measured are left out.
ORDER = (
    *("demo", "near_duplicates", "weak_demo", "twenty_tasks_demo", "twenty_tasks"),
    *("real_vision", "real_text"),
)
BASELINES = ("tsv_c", "tsv_m", "pretrained")
BASELINE_TITLES = ("TSV-C, task known", "TSV-M, head known", "pretrained, head known")


def suites_table() -> str:
    """A row a suite: the models by themselves, baselines, and two modes with the task unknown."""
    head = (
        *("suite", "tasks", "inputs", "individual", *BASELINE_TITLES, "TSV-M, all heads asked"),
        *("`exact`", "share of individual", "`paper`", "share of individual"),
    )
    return table(head, [_suite_row(name, suite) for name, suite in in_order("accuracy")])


def _suite_row(name: str, suite: Any) -> tuple[str, ...]:
    known = (suite["individual"], *(suite["baselines"][one] for one in BASELINES), suite["any_head"])
    averages = (suite["plain"][mode]["average"] for mode in ("exact", "paper"))
    routed = (three(one[key]) for one in averages for key in ("accuracy", "normalised_accuracy"))
    return (code(name), str(suite["tasks"]), f"{suite['inputs']:,}", *map(three, known), *routed)


def suite_modes_table() -> str:
    """A row a suite and mode, without a calibration."""
    head = (
        *("suite", "mode", "accuracy", "95 %", "share of individual", "router right"),
        *("right, or its first alternative", "passes"),
    )
    return table(
        head, [row for name, suite in in_order("accuracy") for row in _mode_rows(name, suite["plain"])]
    )


def _mode_rows(name: str, figures: Any) -> Iterator[tuple[str, ...]]:
    for mode, of_mode in figures.items():
        own = of_mode["average"]
        low, high = own["interval"]
        yield (
            *(code(name), code(mode), three(own["accuracy"]), f"{three(low)} to {three(high)}"),
            *(three(own[key]) for key in ("normalised_accuracy", "router_accuracy", "right_of_two")),
            f"{own['mean_passes']:.2f}",
        )


def calibrated_table() -> str:
    """A row a suite and mode: without a calibration, and with one."""
    head = ("suite", "inputs", "mode", "share of individual", "after", "router right", "after", "passes")
    return table(head, [row for name, suite in in_order("accuracy") for row in _calibrated_rows(name, suite)])


def _calibrated_rows(name: str, suite: Any) -> Iterator[tuple[str, ...]]:
    for mode, of_mode in suite["calibrated"].items():
        before, after = suite["plain"][mode]["average"], of_mode["average"]
        pairs = (one[key] for key in ("normalised_accuracy", "router_accuracy") for one in (before, after))
        passes = f"{before['mean_passes']:.2f}, {after['mean_passes']:.2f}"
        yield (code(name), str(suite["calibrated_by"]), code(mode), *map(three, pairs), passes)


def unfamiliar_table() -> str:
    """A row a suite and kind of inputs that no task covers: can they be told in mode `exact`."""
    head = ("suite", "inputs", "AUROC", "calibrated: AUROC", "answered as unrouted")
    return table(
        head, [row for name, suite in in_order("unfamiliar") for row in _unfamiliar_rows(name, suite)]
    )


def _unfamiliar_rows(name: str, suite: Any) -> Iterator[tuple[str, ...]]:
    for kind, before in suite["plain"].items():
        after = suite["calibrated"][kind]
        figures = (before["auroc"], after["auroc"], after["unrouted"])
        yield (code(name) if kind == "all" else "", kind, *map(three, figures))


def head_choices_table() -> str:
    """A row a suite: the paper's accuracy, by how a head is chosen where a set has several tasks."""
    head = ("suite", "largest logit (`max`, the default)", "larger coefficient (`router`)", "mean (`mean`)")
    rows = [
        (
            code(name),
            three(suite["plain"]["paper"]["average"]["accuracy"]),
            *(three(suite["head_choices"][choice]) for choice in ("router", "mean")),
        )
        for name, suite in in_order("accuracy")
    ]
    return table(head, rows)


def certainty_table() -> str:
    """A row a suite and mode: expected calibration errors, without a calibration and with one."""
    head = ("suite", "mode", "of the label's score", "of the task's coefficient", "calibrated", "calibrated")
    rows = [
        (code(name), code(mode), *_certainty(suite["plain"], mode), *_certainty(suite["calibrated"], mode))
        for name, suite in in_order("accuracy")
        for mode in ("exact", "paper")
    ]
    return table(head, rows)


def _certainty(figures: Any, mode: str) -> tuple[str, str]:
    if mode not in figures:
        return "", ""
    average = figures[mode]["average"]
    return three(average["label_ece"]), three(average["task_ece"])


def near_duplicates_table() -> str:
    """A row a task of the suite: how often it is found, by two modes."""
    modes = _recorded("accuracy")["near_duplicates"]["plain"]
    head = ("task", "`exact`, router right", "task survives", "`paper`, router right", "task survives")
    rows = [
        (
            code(task),
            *(
                three(modes[mode]["tasks"][task][key])
                for mode in ("exact", "paper")
                for key in ("router_accuracy", "task_survival")
            ),
        )
        for task in modes["exact"]["tasks"]
    ]
    return table(head, rows)


def demo_tasks_table() -> str:
    """A row a task of the demo as it ships, in mode `exact`, and the averages."""
    demo = _recorded("accuracy")["demo"]
    head = (
        *("task", "images", "individual", "MASS, task unknown", "share of individual", "router right"),
        *("task survives", "set size", *BASELINE_TITLES),
    )
    routed, known = demo["calibrated"]["exact"], demo["by_task"]
    rows = [
        _demo_row(task, own["inputs"], own["individual"], routed["tasks"][task], own)
        for task, own in known.items()
    ]
    average = ("average", demo["inputs"], demo["individual"], routed["average"], demo["baselines"])
    return table(head, [*rows, _demo_row(*average)])


def _demo_row(task: str, images: int, individual: float, routed: Any, known: Any) -> tuple[str, ...]:
    keys = ("accuracy", "normalised_accuracy", "router_accuracy", "task_survival", "mean_set_size")
    figures = (individual, *(routed[key] for key in keys), *(known[name] for name in BASELINES))
    return (task, f"{images:,}", *map(three, figures))


def in_order(file: str) -> list[tuple[str, Any]]:
    """The suites that a file has figures of, each with these."""
    recorded = _recorded(file)
    return [(name, recorded[name]) for name in ORDER if name in recorded]


def _recorded(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
