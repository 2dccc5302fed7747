"""The table of how long passes would take on a GPU, as computed from their launches."""

from __future__ import annotations

import json

from benchmarks.roofline import TARGETS
from docs.markup import code, table
from docs.suites import RESULTS

ROWS = {
    "second_pass_t20_one_task": "second pass, 20 tasks, one for each image",
    "second_pass_t8_one_task": "second pass, 8 tasks, one for each image",
    "second_pass_t20_three_tasks": "second pass, 20 tasks, sets of three",
    "balanced": f"{code('balanced')}, 8 tasks",
    "exact_over_its_passes": f"{code('exact')}, 8 tasks, all images with two second passes, over its three",
    "throughput_20_sets_over_1": "images a second with 20 sets in a batch, over those with one",
}
TWICE = ", rows before a LayerNorm twice from memory"


def roofline_table() -> str:
    """A row for each figure that has a target, and for each GPU a column for both readings of rows."""
    gpus = json.loads((RESULTS / "roofline.json").read_text(encoding="utf-8"))["gpus"]
    columns = {
        f"{name}{twice}": gpu[ratios]
        for name, gpu in gpus.items()
        for twice, ratios in (("", "ratios"), (TWICE, "ratios_rows_read_twice"))
    }
    rows = [
        (name, f"{TARGETS[key]:.2f}", *(f"{one[key]:.2f}" for one in columns.values()))
        for key, name in ROWS.items()
    ]
    return table(("over a dense pass", "wanted", *columns), rows)
