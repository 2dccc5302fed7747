"""The table of the paper's mode by the method that merges its base, from the recorded run."""

from __future__ import annotations

import json
from pathlib import Path

from docs.markup import code, table
from mass_serve.model_store.merged_base import MERGEABLE

RECORDED = Path(__file__).parents[1] / "benchmarks" / "results" / "merged_bases.json"


def merged_bases_table() -> str:
    """A row for each method, and for the pretrained weights: accuracy and router accuracy of every suite."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    head = ["first pass on"]
    for suite in recorded:
        head += [f"{code(suite)}, accuracy", f"{code(suite)}, task right"]
    rows = []
    for name in next(iter(recorded.values())):
        figures = [
            suite[name][what] for suite in recorded.values() for what in ("accuracy", "router_accuracy")
        ]
        label = code(f"--merged-base {name}") if name in MERGEABLE else f"{name} weights"
        rows.append((label, *(f"{figure:.3f}" for figure in figures)))
    return table(tuple(head), rows)
