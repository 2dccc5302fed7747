"""Accuracy and size by the format of blocks: `python -m benchmarks.block_formats MODELS DATA [--json FILE]`.

MODELS and DATA are those of `benchmarks.ranks`. A store of the tasks that are in both is built for every
format and rank, and measured with the task known and, in the modes `exact` and `paper`, unknown. The blocks'
bytes are those of u, s and vh, over those of the encoder in 16 bits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.ranks import Row, inputs_of, measured
from mass_serve.evaluation import with_individual_accuracies
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.store import Store

FORMATS: tuple[dict[str, Any], ...] = (
    {"format": "bfloat16", "compression_ratio": "1/T"},
    {"format": "int8", "compression_ratio": "1/T"},
    {"format": "int4", "compression_ratio": "1/T"},
    {"format": "bfloat16", "compression_ratio": "2/T"},
    {"format": "int4", "compression_ratio": "2/T"},
)
BYTES_OF_16_BITS = 2


def compared(models: Path, data: Path) -> list[dict[str, Any]]:
    """Builds and measures a store of every format, printing each as it is known."""
    pretrained = models / "pretrained"
    tasks = with_individual_accuracies(pretrained, inputs_of(models, data), BuildOptions(), data)
    rows = []
    for choice in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            store = build(pretrained, tasks, Path(folder) / "store", BuildOptions(**choice))
            row = measured(choice, store, data)
            rows.append(asdict(row) | {"blocks_over_16_bit_encoder": _over_16_bits(store, row)})
        print(_line(rows[-1]), flush=True)
    return rows


def _over_16_bits(store: Store, row: Row) -> float:
    pretrained = store.load_pretrained().values()
    size = sum(tensor.nbytes for tensor in pretrained)
    return row.blocks * size / (BYTES_OF_16_BITS * sum(tensor.numel() for tensor in pretrained))


def _line(row: dict[str, Any]) -> str:
    choice, accuracies = row["rule"], (row["task_known"], row["exact"], row["paper"])
    return (
        f"| {choice['format']} | {choice['compression_ratio']} | {row['blocks_over_16_bit_encoder']:.3f} | "
        f"{row['store_bytes'] / 1e6:.1f} | {' | '.join(f'{accuracy:.4f}' for accuracy in accuracies)} |"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.block_formats")
    parser.add_argument("models", type=Path, metavar="MODELS")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = compared(options.models, options.data)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
