"""What the shrink kernel takes of four GPUs, plain or packed, behind a LayerNorm or not, without a GPU.

    python -m benchmarks.shrink_forms --json benchmarks/results/shrink_forms.json

In bfloat16, for a linear of 768 columns and a rank of 96, with the tile that the table has for each GPU.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import triton

from benchmarks.aot_compile import compile_variant
from benchmarks.aot_variants import product_variant
from benchmarks.gpu_targets import TARGETS

ARCHITECTURES = ("sm_90a", "sm_100", "sm_80", "gfx942")
SHAPE = (2304, 768)  # [d_out, d_in]: qkv of ViT-B/16


def forms() -> list[dict[str, object]]:
    """What each form takes of each architecture. Raises CompileError."""
    return [
        {
            "packed": packed,
            "norm": norm,
            "taken": {name: _taken(name, packed, norm) for name in ARCHITECTURES},
        }
        for packed, norm in product((False, True), repeat=2)
    ]


def _taken(name: str, packed: bool, norm: bool) -> dict[str, int]:
    target = TARGETS[name]
    variant = product_variant("shrink", *SHAPE, packed=packed, target=target, NORM=norm)
    compiled = compile_variant(variant, target)
    return {
        "registers": compiled.registers,
        "registers_allowed": variant.max_registers,  # 0: as many as the compiler likes
        "spilled_bytes": compiled.spilled_bytes,
        "blocks": compiled.blocks,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    text = json.dumps({"triton": triton.__version__, "forms": forms()}, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
