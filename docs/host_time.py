"""The table of what a batch of an engine on a GPU takes of the host's own time."""

from __future__ import annotations

import json

from docs.markup import code, table
from docs.suites import RESULTS

COUNTED = ("uploads", "downloads", "waits", "replays", "launches", "operations")


def host_time_table() -> str:
    """A row for each mode, and one for images whose tasks are named."""
    recorded = json.loads((RESULTS / "host_time_cpu.json").read_text(encoding="utf-8"))
    rows = [
        ("tasks named" if name == "named" else code(name), f"{own['milliseconds']:.1f}", *map(str, counts))
        for name, own in recorded["modes"].items()
        for counts in [[own[what] for what in COUNTED]]
    ]
    return table(
        ("batch of 32", "ms", *COUNTED[:4], "launches of kernels beside", "PyTorch's operations"), rows
    )
