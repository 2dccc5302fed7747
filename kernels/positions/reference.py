"""Segmented positions in plain PyTorch: the definition, and what runs on a CPU.

For the samples `offsets[i]:offsets[i+1]`:

    y[:, 0] = class_i + positions_i[0]                     where there is a class token
    y[:, k] = positions_i[k]                               for the other rows that stand before the patches
    y[:, N + j] = patches[:, j] + positions_i[N + j]

with N tokens before the patches: the class token, and registers, which are rows of the positions and nothing
else (arXiv:2309.16588). patches [B, L - N, D], y [B, L, D], class_i [D], positions_i [L, D], of one floating
dtype; nothing is mutated. Offsets start at 0, rise, and end at B.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def segmented_positions(
    patches: Tensor,
    class_tokens: Sequence[Tensor] | None,
    positions: Sequence[Tensor],
    segment_offsets: Sequence[int],
) -> Tensor:
    """The tokens of this module's docstring; `class_tokens` is None where there are none."""
    length = len(positions[0])
    before = length - patches.shape[1]
    tokens = patches.new_empty(patches.shape[0], length, patches.shape[2])
    for i, (start, stop) in enumerate(pairwise(segment_offsets)):
        own = positions[i]
        tokens[start:stop, :before] = own[:before]
        if class_tokens is not None:
            tokens[start:stop, 0] = class_tokens[i] + own[0]
        torch.add(patches[start:stop], own[before:], out=tokens[start:stop, before:])
    return tokens
