"""The table of `benchmarks.hot_path`: a row a dtype and size of a batch."""

from __future__ import annotations

import json
from pathlib import Path

from docs.markup import table

RECORDED = Path(__file__).parents[1] / "benchmarks" / "results" / "hot_path_cpu.json"
FIGURES = {
    "passes": "passes",
    "over_one_pass": "time, in passes",
    "over_its_passes": "time over its passes",
    "named_over_one_pass": "a task named for each, in passes",
}


def hot_path_table() -> str:
    """What an answer of the demo takes, over a dense pass and over the passes that it is made of."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    rows = [
        (dtype, batch, *(f"{one[key]:.2f}" for key in FIGURES))
        for dtype, batches in recorded["dtypes"].items()
        for batch, one in batches.items()
    ]
    return table(("dtype", "batch", *FIGURES.values()), rows)
