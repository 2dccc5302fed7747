"""The table of what each rule for ranks keeps of the demo, from the recorded run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.markup import code, table

RECORDED = Path(__file__).parents[1] / "benchmarks" / "results" / "ranks_demo.json"


def rank_rules_table() -> str:
    """A row for each rule: the size of its store, what it keeps, and accuracies."""
    head = (
        *("rule", "blocks, of one encoder", "store, MB", "ranks", "energy kept"),
        *("task known", code("paper")),
    )
    return table(head, [_row(one) for one in json.loads(RECORDED.read_text())])


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
