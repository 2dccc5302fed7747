"""An encoder of images at half the side: pixels are averaged, and positions interpolated to the smaller grid.

    y = run(architecture, DenseWeights(on_half_grid(pretrained, part)), halved(patches, part))

A grid of an odd side is halved upwards, 7 x 7 patches to 4 x 4: patches keep their size, and pictures are
averaged to so many of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.backbone import FormedParameters, Parameters, forms_of, patchify
from mass_serve.backbone.architecture import CHANNELS, PatchEmbedding


def halved(patches: Tensor, part: PatchEmbedding) -> Tensor:
    """The patches [B, k, 3 p p] of pictures of half the side, of patches [B, n, 3 p p] in the same dtype."""
    size, side = part.patch_size, math.isqrt(patches.shape[1])
    grid = patches.float().view(-1, side, side, CHANNELS, size, size)
    pixels = grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, CHANNELS, side * size, side * size)
    smaller = F.interpolate(pixels, (_half(side) * size,) * 2, mode="area")
    return patchify(smaller, size).to(patches.dtype)


def on_half_grid(parameters: Parameters, part: PatchEmbedding) -> FormedParameters:
    """The parameters with the positions of such patches; those of the tokens before them stay."""
    positions = parameters[part.positions]
    before, patches = positions.tensor_split([part.tokens_before_patches])
    side = math.isqrt(len(patches))
    grid = patches.float().T.reshape(1, -1, side, side)
    smaller = F.interpolate(grid, (_half(side),) * 2, mode="bicubic", antialias=True, align_corners=False)
    own = smaller.flatten(2)[0].T.to(positions.dtype)
    return FormedParameters({**forms_of(parameters), part.positions: torch.cat([before, own])})


def _half(side: int) -> int:
    return -(-side // 2)
