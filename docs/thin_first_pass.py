"""The tables of `python -m benchmarks.thin_first_pass` and `benchmarks.thin_first_pass_times`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.demo_tables import three
from docs.markup import code, table

FOLDER = Path(__file__).parents[1] / "benchmarks" / "results"
ACCURACY = FOLDER / "thin_first_pass.json"
TIMES = FOLDER / "thin_first_pass_times_cpu.json"
MODES = ("exact", "fast")
TIMED = ("first pass", "exact", "fast", "fast, all early")


def thin_first_pass_table() -> str:
    """A row a suite and variant: the accuracy of both modes, and how far it is from that of all tokens."""
    head = ("suite", "inputs", "first pass", "`exact`", "change", "`fast`", "change", "products", "seconds")
    return table(head, list(_rows(json.loads(ACCURACY.read_text()))))


def _rows(suites: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, suite in suites.items():
        whole = suite["variants"]["all"]
        for variant, own in suite["variants"].items():
            is_first = variant == "all"
            cells = (
                cell
                for mode in MODES
                for cell in (three(own[mode]), "" if is_first else f"{own[mode] - whole[mode]:+.3f}")
            )
            first = (code(name), f"{suite['inputs']:,}") if is_first else ("", "")
            yield *first, variant, *cells, three(own["products"]), three(own["seconds"])


def thin_first_pass_times_table() -> str:
    """A row a number of tasks, dtype and first pass: what it takes, alone and with second passes."""
    head = ("tasks", "first pass", "first pass and evidence", "`exact`", "`fast`", "`fast`, all leave early")
    rows = [
        (name if first_pass == "all" else "", first_pass, *(f"{own[timed]:.2f}" for timed in TIMED))
        for name, found in json.loads(TIMES.read_text()).items()
        for first_pass, own in found["first_passes"].items()
    ]
    return table(head, rows)
