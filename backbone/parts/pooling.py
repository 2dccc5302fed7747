"""From the last block's tokens to the image embedding (arXiv:2103.00020, section 2.4)."""

from __future__ import annotations

from torch import Tensor

from mass_serve.backbone.architecture import Pooling
from mass_serve.backbone.weights.protocol import EncoderWeights


def pool(part: Pooling, weights: EncoderWeights, x: Tensor, eps: float) -> Tensor:
    """`LayerNorm(class token) W^T` [B, P] of x [B, n, D], whose first token is the class token.

    Without a projection it is the normalised class token, [B, D].
    """
    embedding = weights.layer_norm(part.norm, x[:, :1], eps)
    if part.projection_dim:
        embedding = weights.linear(part.linear, embedding)
    return embedding[:, 0]
