"""The table of what the gate of compiled kernels found, by architecture."""

from __future__ import annotations

import json

from docs.markup import code, table
from docs.suites import RESULTS

GPUS = {
    "sm_80": "A100",
    "sm_89": "L4, RTX 4090",
    "sm_90a": "H100, H200",
    "sm_100": "B200",
    "sm_120": "RTX 5090",
    "gfx90a": "MI200",
    "gfx942": "MI300",
}
EXPAND = "expand_kernel bfloat16"


def compiled_kernels_table() -> str:
    """A row for each architecture, with what the largest kernel takes there."""
    recorded = json.loads((RESULTS / "kernels_aot.json").read_text(encoding="utf-8"))["architectures"]
    head = ("architecture", "GPUs", "variants", "with problems", "registers of expand", "its blocks")
    rows = [
        (
            code(name),
            GPUS[name],
            str(one["variants"]),
            str(len(one["problems"])),
            str(one["kernels"][EXPAND]["registers"]),
            str(one["kernels"][EXPAND]["blocks"]),
        )
        for name, one in recorded.items()
    ]
    return table(head, rows)
