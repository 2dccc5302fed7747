"""The tables of what rules and ways to choose ranks keep, and of a store that grew, from recorded runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.markup import code, table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
RECORDED, GROWTH = RESULTS / "ranks_demo.json", RESULTS / "growth_twenty_tasks_demo.json"
ALLOCATION = RESULTS / "rank_allocation.json"


def rank_rules_table() -> str:
    """A row for each rule: the size of its store, what it keeps, and accuracies."""
    head = (
        *("rule", "blocks, of one encoder", "store, MB", "ranks", "energy kept"),
        *("task known", code("paper")),
    )
    return table(head, [_row(one) for one in json.loads(RECORDED.read_text())])


def allocation_table() -> str:
    """A row for each suite and way to choose ranks within the same bytes: accuracies."""
    head = ("suite", "ranks by", "blocks, of one encoder", "task known", code("exact"))
    rows = [
        (
            code(suite),
            way,
            f"{one['blocks']:.3f}",
            *(f"{one[what]:.3f}" for what in ("task_known", "exact")),
        )
        for suite, ways in json.loads(ALLOCATION.read_text()).items()
        for way, one in ways.items()
    ]
    return table(head, rows)


def growth_table() -> str:
    """A row for each way to make a store of twenty tasks: its size, and accuracies."""
    head = ("store", "bytes", "ranks", "energy kept", "task known", code("exact"), code("paper"))
    rows = []
    for made, one in json.loads(GROWTH.read_text()).items():
        least, median, largest = one["ranks"]
        rows.append(
            (
                made,
                f"{one['store_bytes']:,}",
                f"{least} to {largest}, median {median:g}",
                f"{one['energy_kept']:.4f}",
                *(f"{one[what]:.4f}" for what in ("task_known", "exact", "paper")),
            )
        )
    return table(head, rows)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    ((name, value),) = one["rule"].items()
    least, median, largest = one["ranks"]
    return (
        code(f"--{name.replace('_', '-')} {value}"),
        f"{one['blocks']:.2f}",
        f"{one['store_bytes'] / 1e6:.1f}",
        f"{least} to {largest}, median {median:g}",
        f"{one['energy_kept']:.2f}",
        *(f"{one[what]:.3f}" for what in ("task_known", "paper")),
    )
