"""Compiles the kernels for GPUs that are not here, and fails on what would make them slow or not run at all.

    python -m benchmarks.kernels_aot [--json FILE]
    python -m benchmarks.kernels_aot --architecture sm_90a --architecture gfx942 --encoder ViT-L/14

For each architecture: the linears of each encoder in bfloat16, with the tile that the table has for it, for
plain blocks and for packed ones, and the row kernels and the router's beside them. The assembler says what
each takes. Wrong is a register that is spilled, more shared memory than there is, and a product of 16 bits
without the matrix instruction that the architecture is fast with; then the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import triton

from benchmarks.aot_compile import H200, Compiled, compile_variant
from benchmarks.gpu_targets import ENCODERS, TARGETS, Sizes, Target
from mass_serve.kernels.embedding import fused as embedding
from mass_serve.kernels.energies import fused as energies
from mass_serve.kernels.gate import fused as gate
from mass_serve.kernels.layer_norm.fused import ROW_WARPS, layer_norm_kernel
from mass_serve.kernels.low_rank.fused import ALIGNMENT, GROUP
from mass_serve.kernels.low_rank.triton_kernels import expand_kernel, shrink_kernel
from mass_serve.kernels.positions.fused import TOKEN_WARPS, positions_kernel
from mass_serve.kernels.residual.fused import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    BLOCK_SUM,
    coefficients_kernel,
    residuals_kernel,
)
from mass_serve.kernels.tile_shapes import Kernel, TileShape, nearest_tile

TASKS = 8  # whose blocks have a rank of 1/8 of a matrix's


def product_variant(
    kernel: Kernel,
    d_out: int,
    d_in: int,
    *,
    dtype: str = "bfloat16",
    packed: bool = False,
    target: Target = H200,
    **options: object,
) -> Compiled:
    """The shrink or expand kernel of a linear, with the tile that the table has for that target."""
    rank = min(d_out, d_in) // TASKS
    tile = nearest_tile(kernel, dtype, rank if kernel == "shrink" else d_out, d_in, "", target.shared_bytes)
    constants = _constants(tile, dtype, d_in, packed) | {"ALIGNED": _aligned(dtype, d_in)}
    sizes = {"d_in": d_in, "d_out": d_out, "columns_of_y": d_out, "half": d_in // 2}
    if kernel == "shrink":
        del constants["BLOCK_R"]
        return compile_variant(
            shrink_kernel, dtype, constants | options, tile.num_warps, tile.num_stages, target, sizes
        )
    run = math.gcd(ALIGNMENT, d_out // 2)
    constants |= {"ALIGNED": _aligned(dtype, d_in, d_out), "GROUP": GROUP, "LOW_RANK": True, "RUN": run}
    constants |= {"HAS_SKIP": False, "ACTIVATION": None}
    sizes |= {"half": d_out // 2}
    return compile_variant(
        expand_kernel, dtype, constants | options, tile.num_warps, tile.num_stages, target, sizes
    )


def _constants(tile: TileShape, dtype: str, d_in: int, packed: bool) -> dict[str, Any]:
    blocks = {name.upper(): size for name, size in asdict(tile).items() if name.startswith("block")}
    precision = "tf32x3" if dtype == "float32" else "ieee"
    even = d_in % tile.block_k == 0
    return blocks | {"EVEN_K": even, "PACKED": packed, "UPCAST": False, "PRECISION": precision}


def _aligned(dtype: str, *sizes: int) -> bool:
    itemsize = 4 if dtype == "float32" else 2
    return all(size * itemsize % ALIGNMENT == 0 for size in sizes)


def embedding_variant(dtype: str, *, packed: bool = False, target: Target = H200) -> Compiled:
    """The kernel of words with low-rank changes, at width 768."""
    constants = {
        "ROWS": embedding.BLOCK_ROWS,
        "COLUMNS": embedding.BLOCK_COLUMNS,
        "SUM": embedding.BLOCK_RANK,
        "PACKED": packed,
        "UPCAST": False,
        "PRECISION": "tf32x3" if dtype == "float32" else "ieee",
    }
    return compile_variant(embedding.embedding_kernel, dtype, constants, embedding.WARPS, 3, target)


def row_and_router_variants(target: Target = H200) -> Iterator[Compiled]:
    """Yields the other kernels, at width 768."""
    blocks = {"ROWS": BLOCK_ROWS, "COLUMNS": BLOCK_COLUMNS, "SUM": BLOCK_SUM}
    of_energies = {
        "ROWS": energies.BLOCK_ROWS,
        "COLUMNS": energies.BLOCK_COLUMNS,
        "SUM": energies.BLOCK_SUM,
        "PROFILED": True,
    }
    gating = {"ACTIVATION": "silu", "BLOCK": gate.BLOCK}
    yield embedding_variant("bfloat16", target=target)
    yield embedding_variant("float32", target=target)
    yield embedding_variant("bfloat16", packed=True, target=target)
    row = {"BLOCK": 1024}
    for kernel, constants, warps in (
        (embedding.added_rows_kernel, row, embedding.WARPS),
        (gate.gate_kernel, gating, 4),
        (layer_norm_kernel, row, ROW_WARPS),
        (positions_kernel, row, TOKEN_WARPS),
        (coefficients_kernel, blocks, 4),
        (residuals_kernel, blocks, 4),
        (energies.energies_kernel, of_energies, energies.ENERGY_WARPS),
    ):
        yield compile_variant(kernel, "bfloat16", constants, warps, 3, target)


def product_variants(encoder: Sizes, target: Target = H200) -> Iterator[Compiled]:
    """Yields both kernels of each linear, with the activation or skip connection that it has."""
    for name, (d_out, d_in) in encoder.linears.items():
        options: dict[str, Any] = {"ACTIVATION": encoder.activation} if name == "fc1" else {}
        options |= {"HAS_SKIP": True} if name in ("out", "fc2") else {}
        for packed in (False, True):
            yield product_variant("shrink", d_out, d_in, packed=packed, target=target)
            yield product_variant("expand", d_out, d_in, packed=packed, target=target, **options)


def problems(one: Compiled, target: Target) -> list[str]:
    """Returns what is wrong with a variant, in words."""
    is_product = one.kernel in ("expand_kernel", "shrink_kernel") and one.constants["PRECISION"] == "ieee"
    wrong = {
        f"{one.spilled_bytes} bytes of registers are spilled": one.spilled_bytes > 0,
        f"{one.shared_bytes} bytes of shared memory are more than there are": one.shared_bytes
        > target.shared_bytes,
        f"there is no {target.matrix_instruction}": is_product and not one.has_matrix_instruction,
    }
    return [what for what, is_so in wrong.items() if is_so]


def all_variants(encoders: list[str], target: Target) -> Iterator[Compiled]:
    """Yields the products of those encoders, each once, and all other kernels."""
    seen: set[str] = set()
    for encoder in encoders:
        for one in product_variants(ENCODERS[encoder], target):
            if (key := json.dumps(asdict(one), default=str)) not in seen:
                seen.add(key)
                yield one
    yield from row_and_router_variants(target)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--architecture", action="append", choices=TARGETS, help="one of them; all if left out"
    )
    parser.add_argument("--encoder", action="append", choices=ENCODERS, help="one of them; all if left out")
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    found: dict[str, list[Compiled]] = {}
    wrong = 0
    for name in options.architecture or TARGETS:
        found[name] = []
        for one in all_variants(options.encoder or list(ENCODERS), TARGETS[name]):
            found[name].append(one)
            blocks = " ".join(f"{size}" for key, size in one.constants.items() if key.startswith("BLOCK"))
            said = problems(one, TARGETS[name])
            wrong += len(said)
            print(
                f"{name:7s} {one.kernel:20s} {blocks:18s} warps {one.num_warps} stages {one.num_stages}"
                f" registers {one.registers:3d} shared {one.shared_bytes:6d} {'; '.join(said) or 'fine'}",
                flush=True,
            )
    if options.json is not None:
        content = {"triton": triton.__version__, "architectures": found}
        options.json.write_text(json.dumps(content, default=asdict, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
