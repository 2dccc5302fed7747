"""Task vectors: what fine-tuning changed, parameter by parameter."""

from __future__ import annotations

import torch
from torch import Tensor


def task_vector(pretrained: Tensor, finetuned: Tensor) -> Tensor:
    """Computes `finetuned - pretrained` of one parameter, in float32 whatever the checkpoints' dtypes."""
    if pretrained.shape != finetuned.shape:
        raise ValueError(f"shapes differ: {tuple(pretrained.shape)} and {tuple(finetuned.shape)}")
    return finetuned.to(torch.float32) - pretrained.to(torch.float32)
