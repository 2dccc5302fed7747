"""Segmented LayerNorm in plain PyTorch: the definition, and what runs on a CPU.

For the rows `offsets[i]:offsets[i+1]`:

    y = (x - mean(x)) / sqrt(var(x) + eps) * w_i + b_i

x and y [N, D], w_i and b_i [D], of one floating dtype, the variance that of the whole row; nothing is
mutated. Offsets start at 0, rise, and end at N.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def segmented_layer_norm(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], row_offsets: Sequence[int], eps: float
) -> Tensor:
    """The LayerNorm of this module's docstring."""
    rows = x.split_with_sizes([stop - start for start, stop in pairwise(row_offsets)])
    width = x.shape[-1:]
    parts = zip(rows, weights, biases, strict=True)
    return torch.cat([torch.layer_norm(part, width, weight, bias, eps) for part, weight, bias in parts])
