"""The tables of what formats of blocks keep, take in a store, and cost in time, from recorded runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.markup import code, table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
# By suite, in the order of the table.
RECORDED = {
    "eight tasks, the demo's encoder": "block_formats_demo.json",
    "the same on a weak encoder": "block_formats_weak_demo.json",
    "the twenty tasks": "block_formats_twenty_tasks_demo.json",
}
SPEED = RESULTS / "packed_speed_cpu.json"


def block_formats_table() -> str:
    """A row for each suite, format and rank: the blocks' bytes, and accuracies."""
    head = (
        *("suite", "format", "rank", "blocks, of a 16-bit encoder", "individual", "task known"),
        *(code("exact"), code("paper")),
    )
    rows = [
        _row(suite, one)
        for suite, name in RECORDED.items()
        for one in json.loads((RESULTS / name).read_text(encoding="utf-8"))
    ]
    return table(head, rows)


def _row(suite: str, one: dict[str, Any]) -> tuple[str, ...]:
    accuracies = (one[what] for what in ("individual", "task_known", "exact", "paper"))
    return (
        suite,
        code(one["rule"]["format"]),
        code(one["rule"]["compression_ratio"]),
        f"{one['blocks_over_16_bit_encoder']:.2f}",
        *(f"{accuracy:.3f}" for accuracy in accuracies),
    )


def packed_speed_table() -> str:
    """A row for each rank and batch: processor time by format, over that of float32 blocks."""
    formats = ("bfloat16", "int8", "int4")
    rows = [
        (f"{one['share']:g}", str(one["images"]), *(f"{one[name]:.2f}" for name in formats))
        for one in json.loads(SPEED.read_text(encoding="utf-8")).values()
    ]
    return table(("share of the full rank", "images", *map(code, formats)), rows)
