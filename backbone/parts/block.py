"""One transformer block. Pre-norm (arXiv:2010.11929, equations 2 and 3):

    x = x + out(softmax(q k^T / sqrt(d)) v),   q, k, v = qkv(LayerNorm1(x))
    x = x + fc2(act(fc1(LayerNorm2(x))))
    x = x + fc2(act(a) * b),   a, b = fc1(LayerNorm2(x))             where it is gated (arXiv:2002.05202)

Post-norm (arXiv:1706.03762, section 3.1):

    x = LayerNorm1(x + out(softmax(q k^T / sqrt(d)) v)),   q, k, v = qkv(x)
    x = LayerNorm2(x + fc2(act(fc1(x))))

q and k are rotated by their places where positions are rotary (see `backbone.parts.rotary`), and a local
block's softmax is over the near tokens alone. Every operation gives a sample the same bits whatever else is
in the batch (see `kernels.rows` and `kernels.attention`).
"""

from __future__ import annotations

from torch import Tensor

from mass_serve.backbone.architecture import Block, BlockNames
from mass_serve.backbone.layout import Tokens
from mass_serve.backbone.parts.attention import attend_from_first, attend_within
from mass_serve.backbone.parts.rotary import rotate_
from mass_serve.backbone.weights.protocol import EncoderWeights
from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.gate import gate


def attention(part: Block, names: BlockNames, tokens: Tokens) -> Tokens:
    """The tokens and the self-attention of every one."""
    weights = tokens.weights
    qkv = weights.linear(names.qkv, enter_attention(part, names, tokens))
    if part.rotary is not None:
        rotate_(_heads(qkv, part)[..., :2, :, :], tokens.places, part.rotary.theta(names.index))
    attended = attend_within(tokens, qkv, part.num_attention_heads, _reach(part, names.index))
    y = tokens.each(weights.linear(names.out, attended, skip=tokens.x))
    return _leave(part, names.norm1, y)


def class_attention(part: Block, names: BlockNames, tokens: Tokens) -> Tokens:
    """The class token of each sample and its self-attention."""
    entering, width = enter_attention(part, names, tokens), part.width
    first = tokens.layout.firsts(entering)
    q = tokens.sample_weights.linear(names.qkv, first, output_rows=slice(0, width))
    kv = tokens.weights.linear(names.qkv, entering, output_rows=slice(width, 3 * width))
    if part.rotary is not None:  # the query's place is 0: it is not turned
        rotate_(_heads(kv, part)[..., :1, :, :], tokens.places, part.rotary.theta(names.index))
    attended = attend_from_first(tokens, q, kv, part.num_attention_heads, _reach(part, names.index))
    skip = tokens.layout.firsts(tokens.x).contiguous()
    y = tokens.one_each(tokens.sample_weights.linear(names.out, attended, skip=skip))
    return _leave(part, names.norm1, y)


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
    hidden = hidden_layer(part, names, tokens.weights, entering)
    return leave_mlp(part, names, tokens, tokens.weights.linear(names.fc2, hidden, skip=tokens.x))


def hidden_layer(part: Block, names: BlockNames, weights: EncoderWeights, entering: Tensor) -> Tensor:
    """What enters the MLP's fc2, of what enters its fc1."""
    if part.is_gated:
        return _gated(weights.linear(names.fc1, entering), part.activation)
    return weights.linear(names.fc1, entering, activation=part.activation)


def leave_mlp(part: Block, names: BlockNames, tokens: Tokens, x: Tensor) -> Tokens:
    """The tokens x as they leave the block, behind the MLP and its skip connection."""
    return _leave(part, names.norm2, tokens.each(x))


def _leave(part: Block, norm: str, tokens: Tokens) -> Tokens:
    """The tokens, through the LayerNorm that a post-norm block has behind a skip connection."""
    if not part.is_post_norm:
        return tokens
    return tokens.each(tokens.weights.layer_norm(norm, tokens.x, part.layer_norm_eps))


def _reach(part: Block, index: int) -> int | None:
    """How many places away the keys of a block's queries may be; None: as many as there are."""
    return None if part.rotary is None or part.rotary.is_global(index) else part.rotary.reach


def _gated(x: Tensor, activation: Activation) -> Tensor:
    """[B, n, 2 M] -> [B, n, M]"""
    return gate(x.flatten(0, 1), activation).view(x.shape[0], x.shape[1], -1)


def _heads(x: Tensor, part: Block) -> Tensor:
    """[B, n, 3 D] -> [B, n, 3, heads, D / heads], or as many parts of width D as x has (a view)."""
    return x.view(x.shape[0], x.shape[1], -1, part.num_attention_heads, part.head_width)
