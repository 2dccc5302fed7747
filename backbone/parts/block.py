"""One transformer block. Pre-norm (arXiv:2010.11929, equations 2 and 3):

    x = x + out(softmax(q k^T / sqrt(d)) v),   q, k, v = qkv(LayerNorm1(x))
    x = x + fc2(act(fc1(LayerNorm2(x))))
    x = x + fc2(act(a) * b),   a, b = fc1(LayerNorm2(x))             where it is gated (arXiv:2002.05202)

Post-norm (arXiv:1706.03762, section 3.1):

    x = LayerNorm1(x + out(softmax(q k^T / sqrt(d)) v)),   q, k, v = qkv(x)
    x = LayerNorm2(x + fc2(act(fc1(x))))

q and k are rotated by their places where positions are rotary (see `backbone.parts.rotary`), and a local
block's softmax is over the near tokens alone. Every operation gives a sample the same bits whatever else is
in the batch (see `kernels.rows`, and the comments here).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve import kernels
from mass_serve.backbone.architecture import AttentionPooling, Block, BlockNames
from mass_serve.backbone.layout import Tokens
from mass_serve.backbone.parts.rotary import reach_of, rotated
from mass_serve.kernels.activations import Activation

# A query count at which attention's inner products take the path that does not depend on the batch.
QUERY_ROWS = 8
HEAD_MULTIPLE = 16


def attention(part: Block, names: BlockNames, tokens: Tokens) -> Tokens:
    """The tokens and the self-attention of every one."""
    weights = tokens.weights
    qkv = weights.linear(names.qkv, enter_attention(part, names, tokens))
    attended = tokens.layout.each(partial(_self_attention, part, names.index), qkv)
    y = tokens.each(weights.linear(names.out, attended, skip=tokens.x))
    return _leave(part, names.norm1, y)


def class_attention(part: Block, names: BlockNames, tokens: Tokens) -> Tokens:
    """The class token of each sample and its self-attention."""
    entering, width = enter_attention(part, names, tokens), part.width
    first = tokens.layout.firsts(entering)
    q = tokens.sample_weights.linear(names.qkv, first, output_rows=slice(0, width))
    kv = tokens.weights.linear(names.qkv, entering, output_rows=slice(width, 3 * width))
    attended = tokens.layout.reduced(partial(_class_attention, part, names.index), kv, q)
    skip = tokens.layout.firsts(tokens.x).contiguous()
    y = tokens.one_each(tokens.sample_weights.linear(names.out, attended, skip=skip))
    return _leave(part, names.norm1, y)


def attend_once(part: Block | AttentionPooling, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The attention of one query q [B, 1, D] over k and v [B, n, D]: [B, 1, D]."""
    return _attend_once(*(_split_heads(projected, part) for projected in (q, k, v)))


def enter_attention(part: Block, names: BlockNames, tokens: Tokens) -> Tensor:
    """Returns what enters the attention's qkv: `LayerNorm1(x)` [B, n, D], or x where none stands before."""
    if part.is_post_norm or names.norm1 not in part.norms(names.index):
        return tokens.x
    return tokens.weights.layer_norm(names.norm1, tokens.x, part.layer_norm_eps)


def enter_mlp(part: Block, names: BlockNames, tokens: Tokens) -> Tensor:
    """Returns what enters the MLP's fc1, which is also the router's feature: `LayerNorm2(x)` [B, n, D].

    In a post-norm block that is x, which has left LayerNorm1.
    """
    if part.is_post_norm:
        return tokens.x
    return tokens.weights.layer_norm(names.norm2, tokens.x, part.layer_norm_eps)


def mlp(part: Block, names: BlockNames, tokens: Tokens, entering: Tensor) -> Tokens:
    """The tokens and the MLP of every one, from `enter_mlp`'s output."""
    weights = tokens.weights
    if part.is_gated:
        hidden = _gated(weights.linear(names.fc1, entering), part.activation)
    else:
        hidden = weights.linear(names.fc1, entering, activation=part.activation)
    return _leave(part, names.norm2, tokens.each(weights.linear(names.fc2, hidden, skip=tokens.x)))


def _leave(part: Block, norm: str, tokens: Tokens) -> Tokens:
    """The tokens, through the LayerNorm that a post-norm block has behind a skip connection."""
    if not part.is_post_norm:
        return tokens
    return tokens.each(tokens.weights.layer_norm(norm, tokens.x, part.layer_norm_eps))


def _self_attention(part: Block, index: int, qkv: Tensor) -> Tensor:
    """The attention of all tokens of samples, from [b, n, 3 D] to [b, n, D]."""
    q, k, v = (_split_heads(projected, part) for projected in qkv.chunk(3, dim=-1))
    if part.rotary is None:
        return _join_heads(_attend(q, k, v))
    theta = part.rotary.theta(index)
    q, k = rotated(q, theta), rotated(k, theta)
    return _join_heads(_attend(q, k, v, reach_of(part.rotary, index, q)))


def _class_attention(part: Block, index: int, kv: Tensor, q: Tensor) -> Tensor:
    """The attention of the first token q [b, 1, D], from k and v side by side [b, n, 2 D]: [b, 1, D]."""
    k, v = (_split_heads(projected, part) for projected in kv.chunk(2, dim=-1))
    if part.rotary is not None:
        k = rotated(k, part.rotary.theta(index))  # the first query's place is 0: it is not turned
        if not part.rotary.is_global(index):
            k, v = (own[:, :, : part.rotary.reach + 1] for own in (k, v))
    return _attend_once(_split_heads(q, part), k, v)


def _attend_once(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The attention of one query q [B, heads, 1, d] over k and v [B, heads, n, d]: [B, 1, D]."""
    # One query is so short a product that its bits would depend on the batch; eight equal ones are not.
    attended = _attend(q.expand(-1, -1, QUERY_ROWS, -1).contiguous(), k, v)
    return _join_heads(attended[:, :, :1])


def _gated(x: Tensor, activation: Activation) -> Tensor:
    """[B, n, 2 M] -> [B, n, M]"""
    return kernels.gate(x.flatten(0, 1), activation).view(x.shape[0], x.shape[1], -1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, [B, heads, n, d] each, with the same bits for a sample in any batch.

    `mask` [n, n] is added to the products.

    Two things make PyTorch's depend on the batch on a CPU: heads of 8 numbers, whose products depend on where
    a thread's buffer lies in memory, so heads are filled up with zeros to a multiple of 16; and a single
    (sample, head), which the matrix library then splits among its own threads, so it is computed twice.
    """
    if q.shape[0] * q.shape[1] == 1:
        q, k, v = (torch.cat([part, part]) for part in (q, k, v))
        return _attend(q, k, v, mask)[:1]
    dim = q.shape[-1]
    if padding := -dim % HEAD_MULTIPLE:
        q, k, v = (F.pad(part, (0, padding)) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=dim**-0.5)[..., :dim]


def _split_heads(x: Tensor, part: Block | AttentionPooling) -> Tensor:
    """[B, n, D] -> [B, heads, n, D / heads]"""
    return x.view(x.shape[0], x.shape[1], part.num_attention_heads, -1).transpose(1, 2)


def _join_heads(x: Tensor) -> Tensor:
    """[B, heads, n, D / heads] -> [B, n, D]"""
    return x.transpose(1, 2).flatten(2)
