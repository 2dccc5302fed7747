"""The tables of `benchmarks.engine`: what dense passes take, and answers over the fastest of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from docs.markup import code, table
from docs.suites import RESULTS
from mass_serve.router import MODES, PAPER

RECORDED = RESULTS / "engine_cpu.json"
ASKED = ("named", *MODES, PAPER)
LIBRARIES = ("ours", "transformers", "ONNX Runtime", "OpenVINO")


def engine_dense_table() -> str:
    """A row for each encoder, dtype and batch: milliseconds an image by each library."""
    head = ("encoder", "dtype", "batch", *LIBRARIES, "ours over the fastest of the others")
    rows: dict[tuple[str, str, int], tuple[str, ...]] = {}
    for one in _times():
        encoder = "the demo's" if one["store"] == "the demo" else "ViT-B/32"
        # Of one encoder every store has its own turn: the first of them is shown.
        rows.setdefault((encoder, one["dtype"], one["batch"]), _dense_row(encoder, one))
    return table(head, list(rows.values()))


def _dense_row(encoder: str, one: Any) -> tuple[str, ...]:
    dense, batch = one["dense"], one["batch"]
    shown = (f"{1e3 * dense[name] / batch:.2f}" if name in dense else "" for name in LIBRARIES)
    others = [seconds for name, seconds in dense.items() if name != "ours"]
    ratio = f"{dense['ours'] / min(others):.2f}" if others else ""
    return encoder, one["dtype"], str(batch), *shown, ratio


def engine_times_table() -> str:
    """A row for each store, dtype and batch over the fastest dense pass; below each store its passes."""
    others = list(dict.fromkeys(name for one in _times() for name in one["many_models"]))
    head = ("store", "dtype", "batch", "a task named for each", *map(code, ASKED[1:]), *others)
    rows: list[tuple[str, ...]] = []
    for store, runs in groupby(_times(), lambda one: one["store"]):
        own = list(runs)
        rows += [_times_row(one, others) for one in own]
        passes = own[-1]["passes"]
        rows.append((store, "passes", str(own[-1]["batch"]), *(f"{passes[mode]:.2f}" for mode in ASKED)))
    width = len(head)
    return table(head, [(*row, *("",) * (width - len(row))) for row in rows])


def _times_row(one: Any, others: Sequence[str]) -> tuple[str, ...]:
    unit = min(one["dense"].values())
    answers = (f"{one['answers'][mode] / unit:.2f}" for mode in ASKED)
    many = one["many_models"]
    beside = (f"{many[name] / unit:.2f}" if name in many else "" for name in others)
    return one["store"], one["dtype"], str(one["batch"]), *answers, *beside


def _times() -> Any:
    return json.loads(RECORDED.read_text(encoding="utf-8"))["times"]
