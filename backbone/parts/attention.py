"""Which form of attention the samples of a pass have: that of the pass's kernels, or PyTorch's."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from mass_serve.backbone.layout import Tokens
from mass_serve.kernels.attention import attend, attend_near, attend_once, join_heads, split_heads


def attend_within(tokens: Tokens, qkv: Tensor, heads: int, reach: int | None = None) -> Tensor:
    """The attention of every token to those of its sample: qkv [B, n, 3 D] -> [B, n, D].

    With a `reach`, to those at most so many places away.
    """
    if (attention := tokens.weights.attention) is not None:
        return attention.of_all(qkv, heads, reach)
    return tokens.layout.each(partial(_of_all, heads, reach), qkv)


def attend_from_first(tokens: Tokens, q: Tensor, kv: Tensor, heads: int, reach: int | None = None) -> Tensor:
    """The attention of one query of each sample, at its first place: q [B, 1, D] -> [B, 1, D].

    k and v of all tokens are side by side in kv [B, n, 2 D].
    """
    if (attention := tokens.weights.attention) is not None:
        return attention.of_firsts(q, kv, heads, reach)
    return tokens.layout.reduced(partial(_of_firsts, heads, reach), kv, q)


def _of_all(heads: int, reach: int | None, qkv: Tensor) -> Tensor:
    """Of samples of one length, from [b, n, 3 D] to [b, n, D]."""
    q, k, v = (split_heads(projected, heads) for projected in qkv.chunk(3, dim=-1))
    return join_heads(attend(q, k, v) if reach is None else attend_near(q, k, v, reach))


def _of_firsts(heads: int, reach: int | None, kv: Tensor, q: Tensor) -> Tensor:
    """Of samples of one length, from kv [b, n, 2 D] and q [b, 1, D] to [b, 1, D]."""
    k, v = (split_heads(projected, heads) for projected in kv.chunk(2, dim=-1))
    if reach is not None:
        k, v = (own[:, :, : reach + 1] for own in (k, v))
    return join_heads(attend_once(split_heads(q, heads), k, v))
