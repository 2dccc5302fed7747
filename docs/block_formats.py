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
    "`near_duplicates`": "block_formats_near_duplicates.json",
    "`real_vision`": "block_formats_real_vision.json",
    "`real_text`": "block_formats_real_text.json",
}
CALIBRATED = "block_formats_calibrated_twenty_tasks_demo.json"
# What formats that were not taken keep, by suite.
OTHERS = {"eight tasks": "other_formats_demo.json", "twenty tasks": "other_formats_twenty_tasks_demo.json"}
EXACT_TIMES = RESULTS / "block_format_times_cpu.json"
SPEED = RESULTS / "packed_speed_cpu.json"


def block_formats_table() -> str:
    """A row for each suite, format and rank: the blocks' bytes, and accuracies."""
    head = (
        *("suite", "format", "rank", "blocks, of a 16-bit encoder", "individual", "task known"),
        *(code("exact"), code("paper")),
    )
    rows = [_row(suite, one) for suite, name in RECORDED.items() for one in _recorded(name)]
    return table(head, rows)


def _row(suite: str, one: dict[str, Any]) -> tuple[str, ...]:
    accuracies = (one[what] for what in ("individual", "task_known", "exact", "paper"))
    return (
        suite,
        *_choice(one),
        f"{one['blocks_over_16_bit_encoder']:.2f}",
        *("" if accuracy is None else f"{accuracy:.3f}" for accuracy in accuracies),
    )


def _choice(one: dict[str, Any]) -> tuple[str, str]:
    return code(one["rule"]["format"]), code(one["rule"]["compression_ratio"])


def calibrated_formats_table() -> str:
    """A row for each format and rank: the share of the individual accuracy, and once calibrated."""
    rows = [
        (
            *_choice(one),
            f"{one['individual']:.3f}",
            *(f"{one[what]:.3f}" for what in ("exact", "exact_share", "calibrated_share")),
        )
        for one in _recorded(CALIBRATED)
    ]
    head = ("format", "rank", "individual", code("exact"), "share of individual", "share, calibrated")
    return table(head, rows)


def other_formats_table() -> str:
    """A row for each budget and format: how far off changes are, and the accuracy by suite."""
    suites = {suite: _recorded(name) for suite, name in OTHERS.items()}
    rows = [
        (
            code(ones[0]["ratio"]) if ones[0]["ratio"] else "",
            ones[0]["format"],
            *(figure for one in ones for figure in (_off(one["error"]), f"{one['task_known']:.3f}")),
        )
        for ones in zip(*suites.values(), strict=True)
    ]
    titles = (f"{suite}: {what}" for suite in suites for what in ("off by", "task known"))
    return table(("bytes of `int4` at", "format", *titles), rows)


def _off(error: float | None) -> str:
    return "" if error is None else f"{error:.2f}"


def store_sizes_table() -> str:
    """A row for each number of tasks, format and rank: a whole store over its encoder."""
    rows = [
        (
            str(one["tasks"]),
            code(one["format"]),
            code(one["ratio"]),
            f"{one['over_16_bit_encoder']:.2f}",
            f"{one['over_32_bit_encoder']:.2f}",
        )
        for one in _recorded("store_sizes.json")
    ]
    return table(("tasks", "format", "rank", "over an encoder in 16 bits", "in 32 bits"), rows)


def exact_times_table() -> str:
    """A row for each number of inputs together: processor time of `exact` by format and rank."""
    recorded = list(json.loads(EXACT_TIMES.read_text(encoding="utf-8")).values())
    choices = [name for name in recorded[0] if name not in ("together", "seconds")]
    rows = [(str(one["together"]), *(f"{one[name]:.2f}" for name in choices)) for one in recorded]
    return table(("inputs together", *(code(name.replace(" ", "`, `")) for name in choices)), rows)


def _recorded(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return rows


def packed_speed_table() -> str:
    """A row for each rank and batch: processor time by format, over that of float32 blocks."""
    formats = ("bfloat16", "int8", "int4")
    rows = [
        (f"{one['share']:g}", str(one["images"]), *(f"{one[name]:.2f}" for name in formats))
        for one in json.loads(SPEED.read_text(encoding="utf-8")).values()
    ]
    return table(("share of the full rank", "images", *map(code, formats)), rows)
