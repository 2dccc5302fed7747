"""One pre-norm transformer block (arXiv:2010.11929, equations 2 and 3).

    x = x + out(softmax(q k^T / sqrt(d)) v),   q, k, v = qkv(LayerNorm1(x))
    x = x + fc2(act(fc1(LayerNorm2(x))))
    x = x + fc2(act(a) * b),   a, b = fc1(LayerNorm2(x))             where it is gated (arXiv:2002.05202)

Every operation gives a sample the same bits whatever else is in the batch (see `kernels.rows`, and the
comments here).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve import kernels
from mass_serve.backbone.architecture import AttentionPooling, Block, BlockNames
from mass_serve.backbone.weights.protocol import EncoderWeights
from mass_serve.kernels.activations import Activation

# A query count at which attention's inner products take the path that does not depend on the batch.
QUERY_ROWS = 8
HEAD_MULTIPLE = 16


def attention(part: Block, names: BlockNames, weights: EncoderWeights, x: Tensor) -> Tensor:
    """x and the self-attention of every token: [B, L, D] -> [B, L, D]."""
    qkv = weights.linear(names.qkv, enter_attention(part, names, weights, x))
    q, k, v = (_split_heads(projected, part) for projected in qkv.chunk(3, dim=-1))
    return weights.linear(names.out, _join_heads(_attend(q, k, v)), skip=x)


def class_attention(part: Block, names: BlockNames, weights: EncoderWeights, x: Tensor) -> Tensor:
    """The class token of x and its self-attention: [B, L, D] -> [B, 1, D]."""
    normed, width = enter_attention(part, names, weights, x), part.width
    q = weights.linear(names.qkv, normed[:, :1], output_rows=slice(0, width))
    k, v = weights.linear(names.qkv, normed, output_rows=slice(width, 3 * width)).chunk(2, dim=-1)
    return weights.linear(names.out, attend_once(part, q, k, v), skip=x[:, :1].contiguous())


def attend_once(part: Block | AttentionPooling, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The attention of one query q [B, 1, D] over k and v [B, n, D]: [B, 1, D]."""
    # One query is so short a product that its bits would depend on the batch; eight equal ones are not.
    queries = _split_heads(q, part).expand(-1, -1, QUERY_ROWS, -1).contiguous()
    attended = _attend(queries, _split_heads(k, part), _split_heads(v, part))
    return _join_heads(attended[:, :, :1])


def enter_attention(part: Block, names: BlockNames, weights: EncoderWeights, x: Tensor) -> Tensor:
    """Returns what enters the attention's qkv: `LayerNorm1(x)` [B, n, D]."""
    return weights.layer_norm(names.norm1, x, part.layer_norm_eps)


def enter_mlp(part: Block, names: BlockNames, weights: EncoderWeights, x: Tensor) -> Tensor:
    """Returns what enters the MLP's fc1, which is also the router's feature: `LayerNorm2(x)` [B, n, D]."""
    return weights.layer_norm(names.norm2, x, part.layer_norm_eps)


def mlp(part: Block, names: BlockNames, weights: EncoderWeights, x: Tensor, entering: Tensor) -> Tensor:
    """x and its MLP, from `enter_mlp`'s output: [B, n, D] -> [B, n, D]."""
    if part.is_gated:
        hidden = _gated(weights.linear(names.fc1, entering), part.activation)
    else:
        hidden = weights.linear(names.fc1, entering, activation=part.activation)
    return weights.linear(names.fc2, hidden, skip=x)


def _gated(x: Tensor, activation: Activation) -> Tensor:
    """[B, n, 2 M] -> [B, n, M]"""
    return kernels.gate(x.flatten(0, 1), activation).view(x.shape[0], x.shape[1], -1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention, [B, heads, n, d] each, with the same bits for a sample in any batch.

    Two things make PyTorch's depend on the batch on a CPU: heads of 8 numbers, whose products depend on where
    a thread's buffer lies in memory, so heads are filled up with zeros to a multiple of 16; and a single
    (sample, head), which the matrix library then splits among its own threads, so it is computed twice.
    """
    if q.shape[0] * q.shape[1] == 1:
        return _attend(*(torch.cat([part, part]) for part in (q, k, v)))[:1]
    dim = q.shape[-1]
    if padding := -dim % HEAD_MULTIPLE:
        q, k, v = (F.pad(part, (0, padding)) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=dim**-0.5)[..., :dim]


def _split_heads(x: Tensor, part: Block | AttentionPooling) -> Tensor:
    """[B, n, D] -> [B, heads, n, D / heads]"""
    return x.view(x.shape[0], x.shape[1], part.num_attention_heads, -1).transpose(1, 2)


def _join_heads(x: Tensor) -> Tensor:
    """[B, heads, n, D / heads] -> [B, n, D]"""
    return x.transpose(1, 2).flatten(2)
