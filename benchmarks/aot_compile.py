"""Compiles one variant of a kernel for a GPU that is not here, and reads what it takes of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import triton
from triton.compiler import ASTSource, CompilationError
from triton.runtime.errors import PTXASError

from benchmarks.aot_loops import PRODUCT, product_loops
from benchmarks.aot_occupancy import blocks_per_multiprocessor
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
    "q_stride",
    "kv_stride",
    "y_stride",
}
POINTERS = {
    "ids": "*i64",
    "places": "*i64",
    "tiles": "*i32",
    "offsets": "*i32",
    "sample_segments": "*i32",
    "table": "*i64",
    "items": "*i64",
    "projectors": "*fp32",
    "directions": "*fp32",
    "weights": "*fp32",
    "c": "*fp32",
    "residuals": "*fp32",
    "energies": "*fp32",
}
TENSORS = {"x", "h", "y", "skip", "patches", "z", "q", "k", "v"}


@dataclass(frozen=True)
class Variant:
    """One way to compile a kernel."""

    kernel: Any  # as `triton.jit` makes it
    dtype: str
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int = 3
    max_registers: int = 0  # of a thread; 0: the compiler chooses
    sizes: Mapping[str, int] = field(default_factory=dict)  # of MULTIPLES, those that are no multiple of 16
    blocks: int = 1  # that a multiprocessor must hold at once
    pointers: Mapping[str, str] = field(
        default_factory=dict
    )  # of POINTERS and TENSORS, those of another type
    gathers: bool = False  # reads single numbers, or rows that begin anywhere: its loads may be narrow

    @property
    def name(self) -> str:
        """The kernel's."""
        return str(self.kernel.fn.__name__)

    @property
    def vector_loads(self) -> Counter[int]:
        """By bytes, the loads of a main loop that may be narrow, as what they load is no row.

        Of a LayerNorm's weight and bias in float32 a thread copies the one number that is its share.
        """
        return Counter({4: 2} if self.constants.get("NORM") and self.dtype == "float32" else {})

    def described(self) -> dict[str, Any]:
        """What tells it from others, for a record."""
        return {
            "kernel": self.name,
            "dtype": self.dtype,
            "constants": dict(self.constants),
            "sizes": dict(self.sizes),
            "pointers": dict(self.pointers),
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "max_registers": self.max_registers,
        }


@dataclass(frozen=True)
class Compiled:
    """Holds what one variant of a kernel takes."""

    registers: int  # of a thread
    spilled_bytes: int  # of a thread's memory that hold registers
    shared_bytes: int  # of a block
    blocks: int  # that a multiprocessor holds at once
    matrix_instructions: int  # of any kind
    fast_matrix_instructions: int  # of the kind that the target is fast with
    narrowest_load: int  # bytes, of rows in global memory in loops of products; 0 where one loads nothing


class CompileError(Exception):
    """Says why a variant does not compile."""


def compile_variant(variant: Variant, target: Target = H200) -> Compiled:
    """Compiles one variant and reads what it takes of the target. Raises CompileError."""
    names = variant.kernel.arg_names
    signature = {name: "constexpr" if name in variant.constants else _type(name, variant) for name in names}
    multiples = {name for name in MULTIPLES if variant.sizes.get(name, 0) % 16 == 0}
    aligned = [name for name in names if name in multiples or signature[name].startswith("*")]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    values = {(names.index(name),): value for name, value in variant.constants.items()}
    source = ASTSource(variant.kernel, signature, values, attributes)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    options |= {"maxnreg": variant.max_registers} if variant.max_registers else {}
    try:
        built: Any = triton.compile(source, target=target.gpu, options=options)
        registers, spilled, text = _of_nvidia(built) if target.is_nvidia else _of_amd(built)
    # Of a kernel by the first, of a pass by the second, of the assembler by the third.
    except (CompilationError, RuntimeError, PTXASError) as error:
        raise CompileError(_last_cause(error)) from error
    blocks = blocks_per_multiprocessor(
        target,
        num_warps=variant.num_warps,
        registers=registers,
        shared_bytes=built.metadata.shared,
        tensor_columns=getattr(built.metadata, "tmem_size", 0),
    )
    return Compiled(
        registers,
        spilled,
        built.metadata.shared,
        blocks,
        len(PRODUCT.findall(text)),
        text.count(target.matrix_instruction),
        narrowest_load(text, variant),
    )


def narrowest_load(assembly: str, variant: Variant) -> int:
    """Bytes of the narrowest load of rows in loops that multiply matrices; 0 where one loads nothing."""
    loads = (loop.loads - variant.vector_loads for loop in product_loops(assembly))
    return min((min(one, default=0) for one in loads), default=0)


def _last_cause(error: BaseException) -> str:
    """The last line of what an error came of: Triton's own says where, and not what."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2]}"


def _of_nvidia(built: Any) -> tuple[int, int, str]:
    """Registers of a thread, bytes of its stack, where registers are spilled, and the assembly."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ((registers, stack),) = re.findall(r"REG:(\d+) STACK:(\d+)", usage)
    return int(registers), int(stack), built.asm["ptx"]


def _of_amd(built: Any) -> tuple[int, int, str]:
    assembly: str = built.asm["amdgcn"]
    (registers,) = re.findall(r"\.vgpr_count:\s*(\d+)", assembly)
    # Scalar registers spill into lanes of vector registers, and cost no memory.
    (spilled,) = re.findall(r"\.vgpr_spill_count:\s*(\d+)", assembly)
    return int(registers), 4 * int(spilled), assembly


def _type(name: str, variant: Variant) -> str:
    if name in TENSORS - variant.pointers.keys():
        return TYPES[variant.dtype]
    return "fp32" if name == "eps" else variant.pointers.get(name, POINTERS.get(name, "i32"))
