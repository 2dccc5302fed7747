"""Scaled dot-product attention (arXiv:1706.03762, section 3.2.1), a sample with the same bits in any batch.

    softmax(q k^T / sqrt(d)) v

q, k, v [B, heads, n, d]. Memory grows with n, not with its square: at most SCORES_AT_ONCE products are there
at a time, and no mask of n x n.

PyTorch's takes as long in bfloat16 as in float32 on a CPU. Where the processor multiplies bfloat16 itself
(`kernels.reordered` says which ones do), two batched products with a softmax in float32 between them take 0.4
of that time for eight samples of 50 tokens, and 0.7 for one; the products q k^T are rounded to bfloat16.
Samples of few tokens stay with PyTorch's: the matrix library takes small batched products another way.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.kernels.reordered import gains_by_reordering

# A query count at which the inner products take the path that does not depend on the batch.
QUERY_ROWS = 8
HEAD_MULTIPLE = 16
SHORTEST_RUN = 64  # queries of local attention: shorter runs would spend more time on being launched
# Multiplications of one head: fewer, of all heads of a batch, are summed in another order.
PRODUCTS_AT_LEAST = 1 << 12
# Of queries with keys: more would leave the processor's cache between one operation and the next.
SCORES_AT_ONCE = 1 << 19


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The attention of all queries, [B, heads, n, d]. `mask` [n, m] is added to the products.

    Two things make PyTorch's depend on the batch on a CPU: heads of 8 numbers, whose products depend on where
    a thread's buffer lies in memory, so heads are filled up with zeros to a multiple of 16; and a single
    (sample, head), which the matrix library then splits among its own threads, so it is computed twice.
    """
    dim = q.shape[-1]
    if padding := -dim % HEAD_MULTIPLE:
        q, k, v = (F.pad(part, (0, padding)) for part in (q, k, v))
    pairs = q.shape[2] * k.shape[2]
    if (
        pairs * q.shape[3] > PRODUCTS_AT_LEAST
        and pairs <= SCORES_AT_ONCE
        and _gains_by_products(q.device, q.dtype)
    ):
        return _by_products(q, k, v, dim**-0.5, mask)[..., :dim]
    samples = q.shape[0]
    if samples * q.shape[1] == 1:
        q, k, v = (torch.cat([part, part]) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=dim**-0.5)[:samples, ..., :dim]


@cache
def _gains_by_products(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype == torch.bfloat16 and gains_by_reordering(device, dtype)


def _by_products(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """That of bfloat16 by batched products, so many heads at a time that their scores stay cached."""
    # Strides would cost more than a copy does.
    own_q, own_k, own_v = (part.flatten(0, 1).contiguous() for part in (q, k, v))
    step = max(1, SCORES_AT_ONCE // (q.shape[2] * k.shape[2]))
    if len(own_q) <= step:
        return _heads_by_products(own_q, own_k, own_v, scale, mask).view(q.shape)
    parts = (slice(start, start + step) for start in range(0, len(own_q), step))
    attended = [_heads_by_products(own_q[i], own_k[i], own_v[i], scale, mask) for i in parts]
    return torch.cat(attended).view(q.shape)


def _heads_by_products(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """[h, n, d] of q [h, n, d], k and v [h, m, d]."""
    scores = torch.bmm(q, k.transpose(1, 2)).float().mul_(scale)
    if mask is not None:
        scores.add_(mask)
    return torch.bmm(scores.softmax(-1).to(v.dtype), v)


def attend_near(q: Tensor, k: Tensor, v: Tensor, reach: int) -> Tensor:
    """The attention of every query to the keys at most `reach` places away (arXiv:2412.13663, section 2.1.2).

    Queries are taken in runs, each with the keys that any of it reaches, so that what is computed grows with
    n, too.
    """
    length = q.shape[2]
    if length <= reach + 1:
        return attend(q, k, v)
    run = max(reach, SHORTEST_RUN)
    if length <= 2 * run:  # all keys are near to most queries: to leave some out would not pay
        run = length
    band = _band(run, reach, like=q)
    runs = []
    for start in range(0, length, run):
        stop = min(start + run, length)
        first, last = max(0, start - reach), min(length, stop + reach)
        # The band's column 0 is the key `reach` places before the run.
        mask = band[: stop - start, first - start + reach : last - start + reach]
        runs.append(attend(q[:, :, start:stop], k[:, :, first:last], v[:, :, first:last], mask))
    return torch.cat(runs, dim=2)


def attend_once(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The attention of one query, q [B, heads, 1, d]: [B, heads, 1, d]."""
    # One query is so short a product that its bits would depend on the batch; eight equal ones are not.
    return attend(q.expand(-1, -1, QUERY_ROWS, -1).contiguous(), k, v)[:, :, :1]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, n, D] -> [B, heads, n, D / heads]"""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[B, heads, n, D / heads] -> [B, n, D]"""
    return x.transpose(1, 2).flatten(2)


def _band(queries: int, reach: int, like: Tensor) -> Tensor:
    """The mask [queries, queries + 2 reach]: 0 from key i to key i + 2 reach for query i, -inf elsewhere."""
    keys = torch.arange(queries + 2 * reach, device=like.device)
    ahead = keys - torch.arange(queries, device=like.device).unsqueeze(1)
    mask = torch.zeros(ahead.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_((ahead < 0) | (ahead > 2 * reach), -torch.inf)
