"""GPUs that the kernels are compiled for, and the encoders whose products they are compiled for."""

from __future__ import annotations

from dataclasses import dataclass

from triton.backends.compiler import GPUTarget

KIB = 1024


@dataclass(frozen=True)
class Target:
    """One kind of GPU."""

    gpu: GPUTarget
    ptxas: str  # what its assembler calls it; empty for those of AMD
    shared_bytes: int  # that a block may have
    matrix_instruction: str  # that a product of 16 bits is to be made of


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), "sm_80", 163 * KIB, "mma.sync"),  # A100
    "sm_89": Target(GPUTarget("cuda", 89, 32), "sm_89", 99 * KIB, "mma.sync"),  # L4, RTX 4090
    "sm_90a": Target(GPUTarget("cuda", 90, 32), "sm_90a", 227 * KIB, "wgmma.mma_async"),  # H100, H200
    "sm_100": Target(GPUTarget("cuda", 100, 32), "sm_100a", 227 * KIB, "tcgen05.mma"),  # B200
    "sm_120": Target(GPUTarget("cuda", 120, 32), "sm_120a", 99 * KIB, "mma.sync"),  # RTX 5090
    "gfx90a": Target(GPUTarget("hip", "gfx90a", 64), "", 64 * KIB, "v_mfma"),  # MI200
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), "", 64 * KIB, "v_mfma"),  # MI300
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
