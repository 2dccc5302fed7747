"""The names of the merging methods that make one model of several; TALL masks make one for each task."""

from __future__ import annotations

MERGEABLE_NAMES = (
    "tsv_m",
    "weight_averaging",
    "task_arithmetic",
    "ties",
    "consensus",
    "iso_c",
    "iso_cts",
    "opcm",
    "doge",
    "wudi",
)
