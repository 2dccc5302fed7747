"""The tables of further measurements on suites: few labels, groups, separability, tasks added one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from docs.demo_tables import three
from docs.markup import code, table
from docs.suites import RESULTS, in_order


def few_labels_table() -> str:
    """A row a suite and mode: the share that is kept, by how many inputs of each task calibrated it."""
    head = (
        *("suite", "mode", "not calibrated", "8 of each task", "the worst draw"),
        *("32 of each task", "the worst draw"),
    )
    rows = [row for name, suite in in_order("few_labels") for row in _few(name, suite)]
    return table(head, rows)


def _few(name: str, suite: Any) -> Iterator[tuple[str, ...]]:
    for mode, plain in suite["plain"].items():
        drawn = (suite[size][mode][key] for size in ("8", "32") for key in ("normalised_accuracy", "least"))
        yield (code(name), code(mode), three(plain["normalised_accuracy"]), *map(three, drawn))


def dtypes_table() -> str:
    """A row a suite and dtype: accuracy with the task named and without, and what is answered otherwise."""
    head = ("suite", "dtype", "inputs", "task named", "`exact`", "`fast`", "`exact` as in float32")
    rows = [
        (
            code(suite),
            dtype,
            f"{one['inputs']:,}",
            three(one["named"]),
            three(one["exact"]),
            three(one["fast"]),
            three(one["as_float32"]),
        )
        for suite, found in in_order("dtypes")
        for dtype, one in found.items()
    ]
    return table(head, rows)


def groups_table() -> str:
    """A row a suite, mode and number of inputs of one task that are answered together."""
    head = (
        *("suite", "task named", "mode", "inputs together", "task right", "accuracy", "share of individual"),
        *("split, though of one task", "passes"),
    )
    rows = [
        (
            code(suite),
            three(_recorded("groups")[suite]["task_named"]),
            code(mode),
            size,
            three(one["task_right"]),
            three(one["accuracy"]),
            three(one["normalised_accuracy"]),
            three(one["split"]),
            f"{one['passes']:.2f}",
        )
        for suite, mode, size, one in _groups("one_task")
    ]
    return table(head, rows)


def mixed_groups_table() -> str:
    """A row a suite, mode and number of inputs that are said to be of one task and are of two."""
    head = ("suite", "mode", "of another task", "noticed", "task right", "share of individual")
    rows = [
        (
            code(suite),
            code(mode),
            kind,
            three(one["split"]),
            three(one["task_right"]),
            three(one["normalised_accuracy"]),
        )
        for suite, mode, kind, one in _groups("two_tasks")
    ]
    return table(head, rows)


def _groups(kind: str) -> Iterator[tuple[str, str, str, Any]]:
    for suite, found in _recorded("groups").items():
        for mode, kinds in found["modes"].items():
            for size, one in kinds[kind].items():
                yield suite, mode, size, one


def separability_table() -> str:
    """A row for all tasks, and one for each pair that is confused."""
    whole, *pairs = _recorded("separability_twenty_tasks_demo")
    head = ("tasks", "images", "`balanced`", "`exact`", "logistic regression, trained with labels")
    named = [("all twenty", whole), *((" and ".join(map(code, one["tasks"])), one) for one in pairs)]
    rows = [
        (what, f"{one['images']:,}", *map(three, (*one["routed"].values(), one["trained"])))
        for what, one in named
    ]
    return table(head, rows)


def created_tasks_table() -> str:
    """A row a task that was taken out of the demo and created again."""
    head = (
        *("task", "classes", "kept", "seconds", "bytes", "held out: plain", "combination"),
        *("accuracy by name", "linear probe", "its own routed to it", "the others, before", "with it"),
        *("calibrated: its own", "the others"),
    )
    return table(head, [_created(name, one) for name, one in _recorded("created_tasks")["demo"].items()])


def _created(name: str, one: Any) -> tuple[str, ...]:
    kept = f"combination of {one['combined_of']}" if one["combined_of"] else "plain head"
    shares = ("held_out_plain", "held_out_combined", "accuracy", "linear_probe")
    routed = (
        *("routed_own", "routed_others_before", "routed_others"),
        *("calibrated_own", "calibrated_others"),
    )
    costs = (f"{one['seconds']:.0f}", f"{one['bytes']:,}")
    return (code(name), str(one["classes"]), kept, *costs, *(three(one[key]) for key in (*shares, *routed)))


def curves_table() -> str:
    """A row a number of tasks: the store with these alone."""
    head = ("tasks", "added", "individual", "`exact`", "95 %", "TSV-C, task known", "TSV-M, head known")
    return table(head, [_point(one) for one in _recorded("curves_demo")["tasks"]])


def _point(one: Any) -> tuple[str, ...]:
    low, high = one["mass"]["interval"]
    known = (three(one[name]["accuracy"]) for name in ("tsv_c", "tsv_m"))
    mass = (three(one["mass"]["accuracy"]), f"{three(low)} to {three(high)}")
    return (str(one["tasks"]), code(one["added"]), three(one["individual"]), *mass, *known)


def _recorded(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
