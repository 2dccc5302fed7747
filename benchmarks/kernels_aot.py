"""Compiles the kernels for the H200 (sm_90) without a GPU; reads registers, spills and shared memory.

    python -m benchmarks.kernels_aot --json benchmarks/results/kernels_aot.json

Every entry of the table of tile shapes is compiled, as ViT-B/16 would use it, and the row kernels and the
router's beside them. `ptxas -v`, which comes with Triton, says what each takes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mass_serve.kernels.embedding import fused as embedding
from mass_serve.kernels.energies import fused as energies
from mass_serve.kernels.gate import fused as gate
from mass_serve.kernels.layer_norm.fused import ROW_WARPS, layer_norm_kernel
from mass_serve.kernels.low_rank.triton_kernels import expand_kernel, shrink_kernel
from mass_serve.kernels.positions.fused import TOKEN_WARPS, positions_kernel
from mass_serve.kernels.residual.fused import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    BLOCK_SUM,
    coefficients_kernel,
    residuals_kernel,
)
from mass_serve.kernels.tile_shapes import Entry, read_table

TARGET = GPUTarget("cuda", 90, 32)
ARCHITECTURE = "sm_90a"
TYPES = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}
# Integer arguments that are multiples of 16 in a ViT: Triton compiles another variant for them.
MULTIPLES = {
    "h_width",
    "d_in",
    "d_out",
    "half",
    "columns_of_y",
    "first_column",
    "width",
    "sample_stride",
    "token_stride",
}
POINTERS = {
    "ids": "*i64",
    "places": "*i64",
    "tiles": "*i32",
    "offsets": "*i32",
    "sample_segments": "*i32",
    "table": "*i64",
    "projectors": "*fp32",
    "directions": "*fp32",
    "weights": "*fp32",
    "c": "*fp32",
    "residuals": "*fp32",
    "energies": "*fp32",
}
TENSORS = {"x", "h", "y", "skip", "patches", "z"}


@dataclass(frozen=True)
class Compiled:
    """Holds what one variant of a kernel takes."""

    kernel: str
    constants: dict[str, Any]
    num_warps: int
    num_stages: int
    registers: int  # of a thread
    spilled_bytes: int  # stores and loads of a thread
    shared_bytes: int  # of a block
    tensor_core: str  # "wgmma", "mma" or "none"


def compile_variant(
    kernel: Any, dtype: str, constants: dict[str, Any], num_warps: int, num_stages: int
) -> Compiled:
    """Compiles one variant and reads what ptxas says of it."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else _type(name, dtype) for name in names}
    aligned = [name for name in names if name in MULTIPLES or signature[name].startswith("*")]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, values, attributes)
    options = {"num_warps": num_warps, "num_stages": num_stages}
    built: Any = triton.compile(source, target=TARGET, options=options)
    ptx = built.asm["ptx"]
    report = _ptxas_report(ptx)
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill", report)]
    used = "wgmma" if "wgmma.mma_async" in ptx else "mma" if "mma.sync" in ptx else "none"
    registers = int(re.findall(r"Used (\d+) registers", report)[0])
    name = kernel.fn.__name__
    return Compiled(
        name, constants, num_warps, num_stages, registers, sum(spills), built.metadata.shared, used
    )


def _type(name: str, dtype: str) -> str:
    if name in TENSORS:
        return TYPES[dtype]
    return "fp32" if name == "eps" else POINTERS.get(name, "i32")


def _ptxas_report(ptx: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        path = triton.knobs.nvidia.ptxas.path
        command = [path, "-v", f"-arch={ARCHITECTURE}", file.name, "-o", "/dev/null"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def product_variant(entry: Entry, **options: object) -> Compiled:
    """The shrink or expand kernel with the tile of that entry."""
    tile = asdict(entry.tile)
    num_warps, num_stages = tile.pop("num_warps"), tile.pop("num_stages")
    constants: dict[str, Any] = {name.upper(): size for name, size in tile.items()}
    precision = "tf32x3" if entry.dtype == "float32" else "ieee"
    constants |= {"EVEN_K": True, "ALIGNED": True, "PACKED": False, "UPCAST": False, "PRECISION": precision}
    if entry.kernel == "shrink":
        del constants["BLOCK_R"]
        return compile_variant(shrink_kernel, entry.dtype, constants | options, num_warps, num_stages)
    constants |= {"GROUP": 8, "LOW_RANK": True, "RUN": 16, "HAS_SKIP": False, "ACTIVATION": None} | options
    return compile_variant(expand_kernel, entry.dtype, constants, num_warps, num_stages)


def embedding_variant(dtype: str, *, packed: bool = False) -> Compiled:
    """The kernel of words with low-rank changes, at width 768."""
    constants = {
        "ROWS": embedding.BLOCK_ROWS,
        "COLUMNS": embedding.BLOCK_COLUMNS,
        "SUM": embedding.BLOCK_RANK,
        "PACKED": packed,
        "UPCAST": False,
        "PRECISION": "tf32x3" if dtype == "float32" else "ieee",
    }
    return compile_variant(embedding.embedding_kernel, dtype, constants, embedding.WARPS, 3)


def row_and_router_variants() -> list[Compiled]:
    """The other kernels, at width 768."""
    blocks = {"ROWS": BLOCK_ROWS, "COLUMNS": BLOCK_COLUMNS, "SUM": BLOCK_SUM}
    of_energies = {
        "ROWS": energies.BLOCK_ROWS,
        "COLUMNS": energies.BLOCK_COLUMNS,
        "SUM": energies.BLOCK_SUM,
        "PROFILED": True,
    }
    gating = {"ACTIVATION": "silu", "BLOCK": gate.BLOCK}
    return [
        embedding_variant("bfloat16"),
        embedding_variant("float32"),
        embedding_variant("bfloat16", packed=True),
        compile_variant(embedding.added_rows_kernel, "bfloat16", {"BLOCK": 1024}, embedding.WARPS, 3),
        compile_variant(gate.gate_kernel, "bfloat16", gating, 4, 3),
        compile_variant(layer_norm_kernel, "bfloat16", {"BLOCK": 1024}, ROW_WARPS, 3),
        compile_variant(positions_kernel, "bfloat16", {"BLOCK": 1024}, TOKEN_WARPS, 3),
        compile_variant(coefficients_kernel, "bfloat16", blocks, 4, 3),
        compile_variant(residuals_kernel, "bfloat16", blocks, 4, 3),
        compile_variant(energies.energies_kernel, "bfloat16", of_energies, energies.ENERGY_WARPS, 3),
    ]


def all_variants() -> list[Compiled]:
    """Every entry of the table, with the activation or skip connection that its place in a block has.

    Each is compiled for plain blocks, and once more for blocks that may be packed.
    """
    variants = []
    for entry in read_table():
        options: dict[str, object] = {}
        if entry.kernel == "expand":
            options = {"ACTIVATION": "quick_gelu"} if entry.columns == 3072 else {}
            options |= {"HAS_SKIP": True} if entry.columns == 768 else {}
        variants += [product_variant(entry, **options, PACKED=packed) for packed in (False, True)]
    return variants + row_and_router_variants()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    compiled = all_variants()
    for one in compiled:
        blocks = " ".join(f"{size}" for name, size in one.constants.items() if name.startswith("BLOCK"))
        print(
            f"{one.kernel:20s} {blocks:18s} warps {one.num_warps} stages {one.num_stages} registers"
            f" {one.registers:3d} spilled {one.spilled_bytes:4d} shared {one.shared_bytes:6d}"
            f" {one.tensor_core}"
        )
    if options.json is not None:
        content = {"triton": triton.__version__, "architecture": ARCHITECTURE, "kernels": compiled}
        options.json.write_text(json.dumps(content, default=asdict, indent=1) + "\n")


if __name__ == "__main__":
    main()
