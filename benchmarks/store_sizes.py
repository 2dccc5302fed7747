"""The bytes of a whole store over those of its encoder, by tasks, format and rank; nothing is built.

    python -m benchmarks.store_sizes [--json FILE]

The encoder is CLIP ViT-B/32, in 16 bits and in 32, of which every task changed every parameter; a head has
512 numbers for each of 10 classes. Manifest and headers of files are not counted.
"""

from __future__ import annotations

import argparse
import json
from math import prod
from pathlib import Path
from typing import Any

from benchmarks.random_models import CLASSES, VIT_B_32
from mass_serve.backbone.architecture import Architecture
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.experts import ExpertLayout
from mass_serve.model_store.format.factoring import Factoring
from mass_serve.model_store.format.rank_rules import RatioRule

TASKS = (1, 8, 20, 100)
CHOICES: tuple[tuple[BlockFormat, float], ...] = (("bfloat16", 1), ("int4", 1), ("bfloat16", 2), ("int4", 2))
FLOAT_BYTES = 4  # of heads


def experts_bytes(architecture: Architecture, tasks: int, block_format: BlockFormat, ratio: float) -> int:
    """Bytes of one task's experts in a store of so many, each at the ratio `ratio / tasks`."""
    factoring = Factoring(architecture, "factored", RatioRule.of_budget(ratio, tasks))
    layout = ExpertLayout(factoring, "bfloat16").of_format(block_format)
    ranks = factoring.prescribed()
    assert ranks is not None  # a ratio prescribes them
    return sum(spec.nbytes for spec in layout.tensor_specs(ranks).values())


def row(tasks: int, block_format: BlockFormat, ratio: float) -> dict[str, Any]:
    """What a store takes, by the bits of its encoder."""
    numbers = sum(map(prod, VIT_B_32.parameter_shapes().values()))
    head = FLOAT_BYTES * CLASSES * VIT_B_32.embedding_dim
    of_tasks = tasks * (experts_bytes(VIT_B_32, tasks, block_format, ratio) + head)
    return {
        "tasks": tasks,
        "format": block_format,
        "ratio": f"{ratio:g}/T",
        "over_16_bit_encoder": 1 + of_tasks / (2 * numbers),
        "over_32_bit_encoder": 1 + of_tasks / (4 * numbers),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.store_sizes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    rows = [row(tasks, *choice) for tasks in TASKS for choice in CHOICES]
    for one in rows:
        print(one)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
