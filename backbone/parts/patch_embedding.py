"""From pixels to tokens (arXiv:2010.11929, section 3.1; arXiv:2103.00020 and arXiv:2309.16588 add to it)."""

from __future__ import annotations

from torch import Tensor

from mass_serve.backbone.architecture import PatchEmbedding
from mass_serve.backbone.weights.protocol import EncoderWeights


def patchify(pixels: Tensor, patch_size: int) -> Tensor:
    """Whole patches [B, (H/p) (W/p), 3 p p] of pixels [B, 3, H, W], flattened as a convolution's weight."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    whole = pixels[:, :, : rows * patch_size, : columns * patch_size]
    grid = whole.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


def embed(part: PatchEmbedding, weights: EncoderWeights, patches: Tensor, eps: float) -> Tensor:
    """The tokens `[class; registers; W patches + b] + positions` [B, L, D] of patches [B, L - N, 3 p p].

    They go through a LayerNorm where there is one.
    """
    class_token = part.class_token if part.has_class_token else None
    tokens = weights.add_positions(class_token, part.positions, weights.linear(part.linear, patches))
    return weights.layer_norm(part.norm, tokens, eps) if part.has_norm else tokens
