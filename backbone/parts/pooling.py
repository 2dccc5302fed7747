"""From the last block's tokens to the embedding.

    class              LayerNorm(x)[0]                              (arXiv:2103.00020, section 2.4)
    mean               mean(LayerNorm(x)[N:])
    class_and_mean     [LayerNorm(x)[0], mean(LayerNorm(x)[N:])]    (arXiv:2304.07193, section 7.1)
    mean_before_norm   LayerNorm(mean(x[N:]))
    mean_without_norm  mean(x[N:])
    class_without_norm x[0]

for the tokens x of one sample, of which N stand before the patches'; in a text none do. A projection follows
where there is one.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Pooling
from mass_serve.backbone.layout import Tokens


def pool(part: Pooling, before: int, tokens: Tokens, eps: float) -> Tensor:
    """The embeddings [B, P] of tokens, of which `before` stand before the patches'.

    Where only the class token is a part of them, there may be no others.
    """
    pooled = _pooled(part, before, tokens, eps)
    if part.projection_dim:
        pooled = tokens.sample_weights.linear(part.linear, pooled)
    return pooled[:, 0]


def _pooled(part: Pooling, before: int, tokens: Tokens, eps: float) -> Tensor:
    """What enters the projection, [B, 1, D or 2 D]."""
    x, layout = tokens.x, tokens.layout
    mean = partial(_mean, before)
    match part.pooled:
        case "class":
            return tokens.sample_weights.layer_norm(part.norm, layout.firsts(x), eps)
        case "class_without_norm":
            return layout.firsts(x)
        case "mean":
            return layout.reduced(mean, tokens.weights.layer_norm(part.norm, x, eps))
        case "class_and_mean":
            normed = tokens.weights.layer_norm(part.norm, x, eps)
            return torch.cat([layout.firsts(normed), layout.reduced(mean, normed)], dim=-1)
        case "mean_before_norm":
            return tokens.sample_weights.layer_norm(part.norm, layout.reduced(mean, x), eps)
        case "mean_without_norm":
            return layout.reduced(mean, x)


def _mean(before: int, x: Tensor) -> Tensor:
    """[b, n, D] -> [b, 1, D]"""
    return x[:, before:].mean(1, keepdim=True)
