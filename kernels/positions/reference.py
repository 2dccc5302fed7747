"""Segmented positions in plain PyTorch: the definition, and what runs on a CPU.

For the samples `offsets[i]:offsets[i+1]`:

    y[:, 0] = class_i + positions_i[0]
    y[:, 1 + j] = patches[:, j] + positions_i[1 + j]

patches [B, L - 1, D], y [B, L, D], class_i [D], positions_i [L, D], of one floating dtype; nothing is
mutated. Offsets start at 0, rise, and end at B.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def segmented_positions(
    patches: Tensor,
    class_tokens: Sequence[Tensor],
    positions: Sequence[Tensor],
    segment_offsets: Sequence[int],
) -> Tensor:
    """The tokens of this module's docstring."""
    tokens = patches.new_empty(patches.shape[0], patches.shape[1] + 1, patches.shape[2])
    spans = pairwise(segment_offsets)
    for (start, stop), first, rest in zip(spans, class_tokens, positions, strict=True):
        tokens[start:stop, 0] = first + rest[0]
        torch.add(patches[start:stop], rest[1:], out=tokens[start:stop, 1:])
    return tokens
