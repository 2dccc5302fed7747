"""From the last block's tokens to the image embedding by one learned query (arXiv:2106.04560, section 3.3).

y = out(softmax(q k^T / sqrt(d)) v),   q of the probe, k and v of LayerNorm(x)
embedding = y + fc2(act(fc1(LayerNorm2(y))))
"""

from __future__ import annotations

from torch import Tensor

from mass_serve.backbone.architecture import AttentionPooling
from mass_serve.backbone.layout import Tokens
from mass_serve.backbone.parts.attention import attend_from_first


def attention_pool(part: AttentionPooling, tokens: Tokens, eps: float) -> Tensor:
    """The embeddings [B, D] of tokens [B, L, D]."""
    weights, x = tokens.weights, tokens.x
    normed, width = weights.layer_norm(part.norm, x, eps), x.shape[-1]
    probe = weights.add_positions(None, part.probe, x[:, :0])  # a table of one token, before no patches
    q = weights.linear(part.qkv, probe, output_rows=slice(0, width))
    kv = weights.linear(part.qkv, normed, output_rows=slice(width, 3 * width))
    y = weights.linear(part.out, attend_from_first(tokens, q, kv, part.num_attention_heads))
    hidden = weights.linear(part.fc1, weights.layer_norm(part.mlp_norm, y, eps), activation=part.activation)
    return weights.linear(part.fc2, hidden, skip=y)[:, 0]
