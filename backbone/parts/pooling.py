"""From the last block's tokens to the image embedding.

    class              LayerNorm(x)[0]                              (arXiv:2103.00020, section 2.4)
    mean               mean(LayerNorm(x)[N:])
    class_and_mean     [LayerNorm(x)[0], mean(LayerNorm(x)[N:])]    (arXiv:2304.07193, section 7.1)
    mean_before_norm   LayerNorm(mean(x[N:]))
    mean_without_norm  mean(x[N:])

for the tokens x of one image, of which N stand before the patches'. A projection follows where there is one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.backbone.architecture import PatchEmbedding, Pooling
from mass_serve.backbone.weights.protocol import EncoderWeights


def pool(part: Pooling, embedding: PatchEmbedding, weights: EncoderWeights, x: Tensor, eps: float) -> Tensor:
    """The embeddings [B, P] of x [B, L, D], or of the class tokens [B, 1, D] where no others are needed."""
    pooled = _pooled(part, embedding.tokens_before_patches, weights, x, eps)
    if part.projection_dim:
        pooled = weights.linear(part.linear, pooled)
    return pooled[:, 0]


def _pooled(part: Pooling, before: int, weights: EncoderWeights, x: Tensor, eps: float) -> Tensor:
    """What enters the projection, [B, 1, D or 2 D]."""
    match part.pooled:
        case "class":
            return weights.layer_norm(part.norm, x[:, :1], eps)
        case "mean":
            return _mean(weights.layer_norm(part.norm, x, eps)[:, before:])
        case "class_and_mean":
            normed = weights.layer_norm(part.norm, x, eps)
            return torch.cat([normed[:, :1], _mean(normed[:, before:])], dim=-1)
        case "mean_before_norm":
            return weights.layer_norm(part.norm, _mean(x[:, before:]), eps)
        case "mean_without_norm":
            return _mean(x[:, before:])


def _mean(x: Tensor) -> Tensor:
    """[B, n, D] -> [B, 1, D]"""
    return x.mean(1, keepdim=True)
