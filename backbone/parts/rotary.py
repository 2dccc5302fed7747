"""Rotary positions (arXiv:2104.09864, section 3.2.2).

For the token at place p of a text, with halves a and b of each head of q or k:

    [a, b] -> [a cos - b sin, b cos + a sin],   angles p theta^(-2 i / d) for i = 0, ..., d / 2 - 1
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate_(x: Tensor, places: Tensor, theta: float) -> None:
    """Turns heads of q or k by the places of their tokens, in place; computed in float32.

    x [B, n, m, heads, d] has m of q, k; places [n], or [B, n].
    """
    width = x.shape[-1]
    # In float32, as whoever trained the model had them; cosines by way of float64, whose bits depend on no
    # vector loop.
    steps = 1.0 / theta ** (torch.arange(0, width, 2, device=x.device).float() / width)
    angles = (places[..., None, None, None].float() * steps).double()
    cos, sin = angles.cos().float(), angles.sin().float()
    a, b = x.float().chunk(2, dim=-1)
    x.copy_(torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1))
