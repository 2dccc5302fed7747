"""Rotary positions (arXiv:2104.09864, section 3.2.2) and local attention (arXiv:2412.13663, section 2.1.2).

For the token at place p of a text, with halves a and b of each head of q or k:

    [a, b] -> [a cos - b sin, b cos + a sin],   angles p theta^(-2 i / d) for i = 0, ..., d / 2 - 1
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.backbone.architecture import RotaryAttention


def rotated(x: Tensor, theta: float) -> Tensor:
    """q or k [b, heads, n, d] turned by the places 0, ..., n - 1; computed in float32."""
    length, width = x.shape[-2:]
    # In float32, as whoever trained the model had them; cosines by way of float64, whose bits depend on no
    # vector loop.
    steps = 1.0 / theta ** (torch.arange(0, width, 2, device=x.device).float() / width)
    angles = torch.outer(torch.arange(length, device=x.device).float(), steps).double()
    cos, sin = angles.cos().float(), angles.sin().float()
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def reach_of(attention: RotaryAttention, index: int, like: Tensor) -> Tensor | None:
    """The mask [n, n] of block `index` for q [b, heads, n, d]: 0 for near tokens, -inf for others.

    None where every token is near to every other.
    """
    length = like.shape[-2]
    if attention.is_global(index) or length <= attention.reach + 1:
        return None
    places = torch.arange(length, device=like.device)
    far = (places.unsqueeze(1) - places).abs() > attention.reach
    return torch.zeros(length, length, dtype=like.dtype, device=like.device).masked_fill_(far, -torch.inf)
