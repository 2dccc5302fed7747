"""What a GPU is called by its compilers, and what of the fused kernels follows from it."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch

Precision = Literal["ieee", "tf32x3"]
# Architectures without entries in the table of tiles: one that has some, the same kind of matrix instructions
# and no more shared memory.
NEAREST_KIN = {
    "sm_86": "sm_89",
    "sm_87": "sm_80",
    "sm_103": "sm_100",
    "sm_110": "sm_100",
    "sm_121": "sm_120",
    "gfx950": "gfx942",
}


def architecture_of(device: torch.device) -> str:
    """Returns "sm_90" or another of NVIDIA's, "gfx942" or another of AMD's, and "cpu" for a CPU."""
    if device.type != "cuda":
        return device.type
    return _architecture(torch.cuda.current_device() if device.index is None else device.index)


def family_of(architecture: str) -> tuple[str, ...]:
    """The architecture, and behind it the one whose tiles suit it where it has none of its own."""
    kin = NEAREST_KIN.get(architecture)
    return (architecture,) if kin is None else (architecture, kin)


def product_precision(dtype: torch.dtype, architecture: str) -> Precision:
    """How a kernel multiplies numbers of that dtype: Triton's `input_precision`.

    In float32 NVIDIA's matrix instructions take tf32, and three such products are nearly float32's. AMD's
    take float32 itself.
    """
    return "tf32x3" if dtype == torch.float32 and not architecture.startswith("gfx") else "ieee"


def warps_of(threads: int, architecture: str) -> int:
    """How many warps those threads of a block are."""
    return threads // (64 if architecture.startswith("gfx") else 32)


@cache
def _architecture(index: int) -> str:
    if torch.version.hip is not None:
        properties = torch.cuda.get_device_properties(index)
        return str(properties.gcnArchName).partition(":")[0]  # "gfx942:sramecc+:xnack-"
    major, minor = torch.cuda.get_device_capability(index)
    return f"sm_{major}{minor}"
