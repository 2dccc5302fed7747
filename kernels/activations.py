"""The activations of CLIP's MLPs, in plain PyTorch."""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

Activation = Literal["quick_gelu", "gelu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

# Elements that an activation works on at a time: the temporaries stay in the processor's cache.
CHUNK = 1 << 18


def activate_(x: Tensor, activation: Activation) -> Tensor:
    """The activation of x, which may be overwritten."""
    return _quick_gelu_(x) if activation == "quick_gelu" else _gelu(x)


def _quick_gelu_(x: Tensor) -> Tensor:
    """`x sigmoid(1.702 x)`, in place, computed in float32.

    Sigmoid is spelled out: on a CPU its vector loop and its remainder loop round differently, so an
    element's bits would depend on its place in memory; those of exp do not.
    """
    rows = x.view(-1, x.shape[-1])
    for part in rows.split(max(1, CHUNK // rows.shape[1])):  # type: ignore[no-untyped-call]
        part.div_((part.float() * -1.702).exp_().add_(1.0))
    return x


def _gelu(x: Tensor) -> Tensor:
    """The exact GELU, in float32: the bfloat16 one's remainder loop rounds differently on a CPU."""
    return F.gelu(x.float()).to(x.dtype)
