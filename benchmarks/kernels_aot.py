"""Compiles the kernels for GPUs that are not here, and fails on what would make them slow or not run at all.

    python -m benchmarks.kernels_aot [--json FILE]
    python -m benchmarks.kernels_aot --architecture sm_90a --architecture gfx942 --encoder ViT-L/14

For each architecture: the linears of each encoder, with the tile that the table has for it, for plain blocks
and for packed ones, and the row kernels and the router's beside them. `problems` says what is wrong with what
the assembler makes of one; where anything is, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import triton

from benchmarks.aot_compile import Compiled, CompileError, Variant, compile_variant
from benchmarks.aot_variants import all_variants
from benchmarks.gpu_targets import ENCODERS, TARGETS, Target

WIDE = 16  # bytes: the most that one load instruction takes
ITEMSIZES = {"bfloat16": 2, "float16": 2, "float32": 4}
LEAST_FAST_ROWS = 64  # of a tile: those that Hopper's and Blackwell's matrix instructions take at the least


def problems(variant: Variant, compiled: Compiled, target: Target) -> list[str]:
    """Returns what is wrong with a variant, in words."""
    multiplies = "PRECISION" in variant.constants
    fast = variant.dtype != "float32" and variant.constants.get("BLOCK_M", 0) >= LEAST_FAST_ROWS
    wide = widest_load(variant)
    narrow = 0 < compiled.narrowest_load < wide and not variant.gathers
    wrong = {
        f"{compiled.spilled_bytes} bytes of registers are spilled": compiled.spilled_bytes > 0,
        f"{compiled.shared_bytes} bytes of shared memory are more than there are": compiled.shared_bytes
        > target.shared_bytes,
        "there is no matrix instruction": multiplies and compiled.matrix_instructions == 0,
        f"there is no {target.matrix_instruction}": fast and compiled.fast_matrix_instructions == 0,
        "a main loop has no load that is recognised": multiplies and compiled.narrowest_load == 0,
        f"a main loop loads {compiled.narrowest_load} bytes at a time, not {wide}": narrow,
        f"a multiprocessor holds {compiled.blocks} blocks, not {variant.blocks}": compiled.blocks
        < variant.blocks,
    }
    return [what for what, is_so in wrong.items() if is_so]


def widest_load(variant: Variant) -> int:
    """How many bytes every load of a main loop can have: 16, or what rows begin at multiples of.

    Packed codes are loaded for as many numbers as 16 bytes of x hold, fewer where their rows begin elsewhere.
    """
    wide = min(variant.constants.get(name, WIDE) for name in ("ALIGN_IN", "ALIGN_OUT"))
    if variant.constants.get("PACKED"):
        wide = min(wide // ITEMSIZES[variant.dtype], variant.constants.get("RUN", WIDE))
    return int(wide)


def checked(variant: Variant, target: Target) -> dict[str, Any]:
    """What a variant takes and what is wrong with it, for a record."""
    try:
        compiled = compile_variant(variant, target)
    except CompileError as error:
        return variant.described() | {"problems": [f"it does not compile: {error}"]}
    return variant.described() | asdict(compiled) | {"problems": problems(variant, compiled, target)}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--architecture", action="append", choices=TARGETS, help="one of them; all if left out"
    )
    parser.add_argument("--encoder", action="append", choices=ENCODERS, help="one of them; all if left out")
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    start = time.monotonic()
    found: dict[str, list[dict[str, Any]]] = {}
    for name in options.architecture or TARGETS:
        found[name] = []
        for variant in all_variants(options.encoder or list(ENCODERS), TARGETS[name]):
            found[name].append(one := checked(variant, TARGETS[name]))
            print(f"{name:7s} {_line(one)}", flush=True)
    everything = [one for of_architecture in found.values() for one in of_architecture]
    wrong = sum(1 for one in everything if one["problems"])
    seconds = round(time.monotonic() - start)
    print(f"{len(everything)} variants in {seconds} s, {wrong} of them with problems")
    if options.json is not None:
        content = {"triton": triton.__version__, "seconds": seconds, "architectures": found}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if wrong else 0


def _line(one: dict[str, Any]) -> str:
    blocks = " ".join(
        str(size) for key, size in one["constants"].items() if key.startswith(("BLOCK", "ROWS", "COL", "SUM"))
    )
    taken = f"registers {one.get('registers', '-')} blocks {one.get('blocks', '-')}"
    return (
        f"{one['kernel']:20s} {one['dtype']:8s} {blocks:14s} warps {one['num_warps']} stages"
        f" {one['num_stages']} {taken} {'; '.join(one['problems']) or 'fine'}"
    )


if __name__ == "__main__":
    sys.exit(main())
