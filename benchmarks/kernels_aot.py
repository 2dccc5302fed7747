"""Compiles the kernels for GPUs that are not here, and fails on what would make them slow or not run at all.

    python -m benchmarks.kernels_aot [--json FILE]
    python -m benchmarks.kernels_aot --architecture sm_90a --architecture gfx942 --encoder ViT-L/14

For each architecture: the linears of each encoder, with the tile that the table has for it, and all other
tiles of the table, for plain blocks and for packed ones, and the row kernels and the router's beside them.
`problems` says what is wrong with what the assembler makes of one; where anything is, the exit code is 1. As
many architectures are compiled at a time as there are cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
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
    parser.add_argument("--json", type=Path, help="write what each kernel takes at the most here")
    options = parser.parse_args()
    names = options.architecture or list(TARGETS)
    compiled = partial(_of_architecture, options.encoder or list(ENCODERS))
    # New processes: a fork would have the threads' locks of this one.
    with ProcessPoolExecutor(min(len(names), os.cpu_count() or 1), get_context("spawn")) as pool:
        found = dict(zip(names, pool.map(compiled, names), strict=True))
    everything = [one for of_architecture in found.values() for one in of_architecture]
    wrong = [one for one in everything if one["problems"]]
    print(f"{len(everything)} variants, {len(wrong)} of them with problems")
    if options.json is not None:
        content = {"triton": triton.__version__, "architectures": {k: summary(v) for k, v in found.items()}}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if wrong else 0


def _of_architecture(encoders: list[str], name: str) -> list[dict[str, Any]]:
    found = []
    for variant in all_variants(encoders, TARGETS[name]):
        found.append(one := checked(variant, TARGETS[name]))
        print(f"{name:7s} {_line(one)}", flush=True)
    return found


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the variants of one architecture take at the most, by kernel and dtype, and what is wrong."""
    kernels: dict[str, dict[str, int]] = {}
    for one in found:
        if "registers" in one:
            most = kernels.setdefault(f"{one['kernel']} {one['dtype']}", {"variants": 0})
            most["variants"] += 1
            most["registers"] = max(one["registers"], most.get("registers", 0))
            most["shared_bytes"] = max(one["shared_bytes"], most.get("shared_bytes", 0))
            most["blocks"] = min(one["blocks"], most.get("blocks", one["blocks"]))
    wrong = [_line(one) for one in found if one["problems"]]
    return {"variants": len(found), "problems": wrong, "kernels": kernels}


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
