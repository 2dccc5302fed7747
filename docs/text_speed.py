"""The tables of `benchmarks.texts` and `benchmarks.text_memory`: the figures of the recorded runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docs.demo_tables import three
from docs.markup import code, table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
Row = tuple[str, str, str]  # what is measured, its key in the JSON, the aim

SPEED: Sequence[Row] = (
    ("tasks mixed, one named for each text, over the dense model", "text_named_over_dense", "at most 1.3"),
    ('`"answer": "each"` of 8 tasks, over one named for each text', "text_each_over_one", "at most 8.5"),
    (
        "throughput of packed texts of mixed lengths over padded ones",
        "text_packed_over_padded",
        "at least 1.6",
    ),
    ("the same with a task named for each text", "text_packed_named_over_padded_dense", ""),
    ("throughput over HTTP over the engine's", "text_http_over_engine", "at least 0.9"),
    ("memory over that of 8 sessions of ONNX Runtime", "text_resident_over_onnx", "at most 0.333"),
    ("the same, over sessions without an arena", "text_resident_over_onnx_without_arena", ""),
)
MEMORY: Sequence[Row] = (
    ("bytes of the tensors of eight over one", "text_memory_eight_over_one", "at most 2.5"),
    ("resident memory of eight over one", "text_resident_eight_over_one", "at most 2.5"),
)
# A batch, and the keys of its seconds in each column.
SECONDS = (
    ("32 texts of 64 tokens", ("dense_transformers", "dense_onnx", "dense_ours", "named")),
    (
        "32 texts of 3 to 128 tokens, padded",
        ("dense_transformers_mixed", "dense_onnx_mixed", "dense_ours_mixed", ""),
    ),
    ("the same, packed", ("", "", "packed_ours", "packed_named")),
)


def text_speed_table() -> str:
    """The ratios of `benchmarks.texts` with their aims."""
    return _ratios("texts_cpu", SPEED)


def text_memory_table() -> str:
    """The ratios of `benchmarks.text_memory` with their aims."""
    return _ratios("text_memory_cpu", MEMORY)


def text_seconds_table() -> str:
    """The seconds that batches take in each dense model, and with a task named for each text."""
    raw = _recorded("texts_cpu")["raw"]
    head = (
        "seconds",
        "transformers",
        "ONNX Runtime",
        "one model here",
        "8 tasks here, one named for each text",
    )
    rows = [(batch, *(three(raw[key]) if key else "" for key in keys)) for batch, keys in SECONDS]
    return table(head, rows)


def _ratios(name: str, rows: Sequence[Row]) -> str:
    run = _recorded(name)
    head = ("what", "key in the JSON", "measured", "aim")
    return table(head, [(what, code(key), three(run[key]), aim) for what, key, aim in rows])


def _recorded(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
