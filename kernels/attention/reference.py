"""Scaled dot-product attention (arXiv:1706.03762, section 3.2.1), a sample with the same bits in any batch.

    softmax(q k^T / sqrt(d)) v

q, k, v [B, heads, n, d]. Memory grows with n, not with its square: neither products nor a mask of n x n are
ever formed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# A query count at which the inner products take the path that does not depend on the batch.
QUERY_ROWS = 8
HEAD_MULTIPLE = 16
SHORTEST_RUN = 64  # queries of local attention: shorter runs would spend more time on being launched


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The attention of all queries, [B, heads, n, d]. `mask` [n, m] is added to the products.

    Two things make PyTorch's depend on the batch on a CPU: heads of 8 numbers, whose products depend on where
    a thread's buffer lies in memory, so heads are filled up with zeros to a multiple of 16; and a single
    (sample, head), which the matrix library then splits among its own threads, so it is computed twice.
    """
    if q.shape[0] * q.shape[1] == 1:
        q, k, v = (torch.cat([part, part]) for part in (q, k, v))
        return attend(q, k, v, mask)[:1]
    dim = q.shape[-1]
    if padding := -dim % HEAD_MULTIPLE:
        q, k, v = (F.pad(part, (0, padding)) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=dim**-0.5)[..., :dim]


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
