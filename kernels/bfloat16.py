"""Whether a device multiplies bfloat16 itself: then twice as fast as float32, and else slower than it."""

from __future__ import annotations

import torch

# What processors call it: AVX512_BF16 and AMX on x86, BF16 on ARM.
_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
_FIRST_CUDA_CAPABILITY = (8, 0)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tells whether a CPU or a CUDA device has instructions for products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _FIRST_CUDA_CAPABILITY
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(flag, False) for flag in _CPU_FLAGS)


def wide_dtype(device: torch.device) -> torch.dtype:
    """The dtype of `auto`, and of all that is not in whole numbers beside weights that are."""
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
