"""Compiles one variant of a kernel for a GPU that is not here, and reads what it takes of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import triton
from triton.compiler import ASTSource

from benchmarks.gpu_targets import TARGETS, Target

H200 = TARGETS["sm_90a"]
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
    has_matrix_instruction: bool  # the one that the target is fast with


def compile_variant(
    kernel: Any,
    dtype: str,
    constants: Mapping[str, Any],
    num_warps: int,
    num_stages: int,
    target: Target = H200,
    sizes: Mapping[str, int] | None = None,
) -> Compiled:
    """Compiles one variant and reads what the target's assembler says of it.

    `sizes` are those of MULTIPLES that a variant does not have as a multiple of 16.
    """
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else _type(name, dtype) for name in names}
    multiples = {name for name in MULTIPLES if (sizes or {}).get(name, 0) % 16 == 0}
    aligned = [name for name in names if name in multiples or signature[name].startswith("*")]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, values, attributes)
    options = {"num_warps": num_warps, "num_stages": num_stages}
    built: Any = triton.compile(source, target=target.gpu, options=options)
    registers, spilled, text = _of_amd(built) if not target.ptxas else _of_nvidia(built, target)
    return Compiled(
        kernel.fn.__name__,
        dict(constants),
        num_warps,
        num_stages,
        registers,
        spilled,
        built.metadata.shared,
        target.matrix_instruction in text,
    )


def _of_nvidia(built: Any, target: Target) -> tuple[int, int, str]:
    """Registers of a thread, bytes that it spills, and the assembly."""
    ptx: str = built.asm["ptx"]
    report = _ptxas_report(ptx, target)
    spills = [int(number) for number in re.findall(r"(\d+) bytes spill", report)]
    return int(re.findall(r"Used (\d+) registers", report)[0]), sum(spills), ptx


def _of_amd(built: Any) -> tuple[int, int, str]:
    assembly: str = built.asm["amdgcn"]
    (registers,) = re.findall(r"\.vgpr_count:\s*(\d+)", assembly)
    # Scalar registers spill into lanes of vector registers, and cost no memory.
    (spilled,) = re.findall(r"\.vgpr_spill_count:\s*(\d+)", assembly)
    return int(registers), 4 * int(spilled), assembly


def _type(name: str, dtype: str) -> str:
    if name in TENSORS:
        return TYPES[dtype]
    return "fp32" if name == "eps" else POINTERS.get(name, "i32")


def _ptxas_report(ptx: str, target: Target) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        path = _assembler(target)
        command = [path, "-v", f"-arch={target.ptxas}", file.name, "-o", "/dev/null"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def _assembler(target: Target) -> str:
    """Triton brings a newer assembler for the GPUs from sm_100 on."""
    nvidia = triton.knobs.nvidia
    path: str = (nvidia.ptxas_blackwell if target.gpu.arch >= 100 else nvidia.ptxas).path
    return path
