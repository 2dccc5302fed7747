"""GPUs that the kernels are compiled for, and the encoders whose products they are compiled for."""

from __future__ import annotations

from dataclasses import dataclass

from triton.backends.compiler import GPUTarget

KIB = 1024


@dataclass(frozen=True)
class Multiprocessor:
    """What the blocks of a kernel share: one multiprocessor, or one compute unit of AMD's.

    NVIDIA's numbers are those of the CUDA C++ Programming Guide, "Technical Specifications per Compute
    Capability"; AMD's those of LLVM's "User Guide for AMDGPU Backend" and of the CDNA 2 and 3 ISA guides.
    """

    shared_bytes: int
    warps: int
    blocks: int
    registers: int  # of 32 bits, of all threads
    register_unit: int  # registers are given to a warp in multiples of this number
    reserved_shared_bytes: int  # the system's, of every block
    shared_unit: int
    tensor_columns: int = 512  # of tensor memory, where there is any


@dataclass(frozen=True)
class Target:
    """One kind of GPU."""

    gpu: GPUTarget
    shared_bytes: int  # that a block may have
    matrix_instruction: str  # that a product of 16 bits is to be made of
    multiprocessor: Multiprocessor

    @property
    def architecture(self) -> str:
        """What the table of tiles calls it: as `kernels.gpu_architecture.architecture_of` does."""
        return f"sm_{self.gpu.arch}" if self.is_nvidia else str(self.gpu.arch)

    @property
    def is_nvidia(self) -> bool:
        """Tells it from those of AMD."""
        return bool(self.gpu.backend == "cuda")


def _nvidia(capability: int, shared: int, warps: int, blocks: int, instruction: str) -> Target:
    sizes = Multiprocessor(shared * KIB, warps, blocks, 64 * KIB, 256, KIB, 128)
    gpu = GPUTarget("cuda", capability, 32)
    return Target(gpu, (shared - 1) * KIB, instruction, sizes)


def _amd(name: str) -> Target:
    # Four units of 16 lanes have 512 registers for a lane of each of at most 8 waves.
    sizes = Multiprocessor(64 * KIB, 32, 16, 4 * 512 * 64, 8 * 64, 0, 512)
    return Target(GPUTarget("hip", name, 64), 64 * KIB, "v_mfma", sizes)


TARGETS = {
    "sm_80": _nvidia(80, 164, 64, 32, "mma.sync"),  # A100
    "sm_89": _nvidia(89, 100, 48, 24, "mma.sync"),  # L4, RTX 4090
    "sm_90a": _nvidia(90, 228, 64, 32, "wgmma.mma_async"),  # H100, H200
    "sm_100": _nvidia(100, 228, 64, 32, "tcgen05.mma"),  # B200
    "sm_120": _nvidia(120, 100, 48, 24, "mma.sync"),  # RTX 5090
    "gfx90a": _amd("gfx90a"),  # MI200
    "gfx942": _amd("gfx942"),  # MI300
}


@dataclass(frozen=True)
class Sizes:
    """What the products of an encoder follow from."""

    width: int
    mlp: int  # rows of fc1's weight, twice as many where it is gated
    hidden: int  # columns of fc2's
    activation: str | None  # of fc1; None where a gate is behind it
    patch: int | None = None  # columns of the patch embedding's weight

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of each linear of a block, and of the patch embedding."""
        embedding = {} if self.patch is None else {"patches": (self.width, self.patch)}
        return embedding | {
            "qkv": (3 * self.width, self.width),
            "out": (self.width, self.width),
            "fc1": (self.mlp, self.width),
            "fc2": (self.width, self.hidden),
        }


ENCODERS = {
    "ViT-B/32": Sizes(768, 3072, 3072, "quick_gelu", 3 * 32 * 32),
    "ViT-B/16": Sizes(768, 3072, 3072, "quick_gelu", 3 * 16 * 16),
    "ViT-L/14": Sizes(1024, 4096, 4096, "quick_gelu", 3 * 14 * 14),
    "ViT-S/14": Sizes(384, 1536, 1536, "gelu", 3 * 14 * 14),
    "BERT-base": Sizes(768, 3072, 3072, "gelu"),
    "ModernBERT": Sizes(768, 2304, 1152, None),
}
