"""Attention within the samples of a plan in one Triton kernel (arXiv:2205.14135, arXiv:2307.08691).

For the rows `offsets[b]:offsets[b+1]` of sample b, and for every head:

    y = softmax(q k^T / sqrt(d)) v

over all keys of the sample or, where there is a reach, over those at most `reach` places away
(arXiv:2412.13663, section 2.1.2). qkv [N, 3 H d] holds q, k and v of all heads side by side, y is [N, H d],
both of one dtype: bfloat16, float16, or float32, whose products are nearly in float32 (see
`kernels.gpu_architecture.product_precision`). `first_attention` has the query of each sample's first token
alone: q and y are [B, H d], kv is [N, 2 H d].

Only y is written, every element once. Samples in the plan's tail come out as zeros, and neither their queries
nor their keys are read; so does the first query of a sample without tokens. A row's bits depend on its sample
alone: the tiles of queries and of keys begin where the sample does, one program takes all keys of its queries
in ascending order, and none of its sizes follows from the batch. Softmax and sums are in float32;
`exp(q k^T / sqrt(d) - max)` is rounded to the dtype before it multiplies v.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from mass_serve.kernels.gpu_architecture import architecture_of, family_of, product_precision
from mass_serve.kernels.segment_plan import SegmentPlan

# Of 128 queries a tile spills on most GPUs, and 50, 197 or 257 tokens leave half of the last one empty.
BLOCK_QUERIES = {torch.float32: 32, torch.float16: 64, torch.bfloat16: 64}
BLOCK_KEYS = {torch.float32: 32, torch.float16: 64, torch.bfloat16: 64}
FEW_KEYS = 32  # in a tile of a local block, which ends sooner then, or of heads wider than WIDE_HEAD
SPILLS_FEW_KEYS = "sm_100"  # a B200, where a tile of so few spills in a local block
WIDE_HEAD = 64
FEW_QUERIES = 16  # in a tile of float32 heads wider than WIDE_HEAD, which spills otherwise
LEAST = 16  # rows or columns of a product
ATTENTION_WARPS = 4
ATTENTION_STAGES = 2
# The largest score before any is known: finite, so that a tile without a near key leaves no NaN behind.
LOWEST: tl.constexpr = tl.constexpr(-1e30)


@triton.jit(do_not_specialize=["tokens", "blocks"])
def attention_kernel(
    q,
    k,
    v,
    y,
    offsets,
    sample_segments,
    tokens,
    blocks,
    q_stride,
    kv_stride,
    y_stride,
    reach,
    SCALE: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FIRST: tl.constexpr,
    RAGGED: tl.constexpr,
    LOCAL: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One head of BLOCK_M queries of one sample, of this module's docstring.

    Rows of q, of k and v, and of y are so many numbers apart. `offsets` are the samples' where they are
    RAGGED, and `sample_segments` those of their rows; else every sample has as many `tokens`, and a segment.
    With FIRST the query is row b of q, and so is its y. SCALE is that of `exp2`.
    """
    program, head = tl.program_id(0), tl.program_id(1)
    sample, first_query = program // blocks, program % blocks * BLOCK_M
    if RAGGED:
        first_row = tl.load(offsets + sample).to(tl.int64)
        length = tl.load(offsets + sample + 1) - first_row.to(tl.int32)
    else:
        first_row = sample.to(tl.int64) * tokens
        length = tokens
    queries, query_row = length, first_row
    if FIRST:
        queries, query_row = 1, sample.to(tl.int64)
    if first_query >= queries:
        return
    # Offsets inside a sample fit 32 bits; those of the sample, in the pointers, have 64.
    places, columns = first_query + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    wanted = (places < queries)[:, None] & (columns < HEAD)[None, :]
    y += query_row * y_stride + head * HEAD + places[:, None] * y_stride + columns[None, :]
    of_sample = sample_segments + sample
    if RAGGED:
        of_sample = sample_segments + first_row
    if tl.load(of_sample, mask=length > 0, other=-1) < 0:
        tl.store(y, tl.zeros((BLOCK_M, BLOCK_D), dtype=y.dtype.element_ty), mask=wanted)
        return
    q += query_row * q_stride + head * HEAD + places[:, None] * q_stride + columns[None, :]
    k += first_row * kv_stride + head * HEAD
    v += first_row * kv_stride + head * HEAD
    own = tl.load(q, mask=wanted, other=0.0)
    if UPCAST:
        own = own.to(tl.float32)
    first_key, end_key = 0, length
    if LOCAL:
        first_key = tl.maximum(first_query - reach, 0) // BLOCK_K * BLOCK_K
        end_key = tl.minimum(length, tl.minimum(first_query + BLOCK_M, queries) + reach)
    highest = tl.full((BLOCK_M,), LOWEST, dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    for start in range(first_key, end_key, BLOCK_K):
        keys = start + tl.arange(0, BLOCK_K)
        inside = keys < end_key
        of_keys = keys[:, None] * kv_stride + columns[None, :]
        there = inside[:, None] & (columns < HEAD)[None, :]
        key = tl.load(k + of_keys, mask=there, other=0.0)
        value = tl.load(v + of_keys, mask=there, other=0.0)
        if UPCAST:
            key, value = key.to(tl.float32), value.to(tl.float32)
        scores = tl.dot(own, tl.trans(key), input_precision=PRECISION) * SCALE
        near = inside[None, :]
        if LOCAL:
            ahead = keys[None, :] - places[:, None]
            near = near & (ahead <= reach) & (ahead >= -reach)
        scores = tl.where(near, scores, float("-inf"))
        before, highest = highest, tl.maximum(highest, tl.max(scores, axis=1))
        shares = tl.exp2(scores - highest[:, None])
        kept = tl.exp2(before - highest)
        total = total * kept + tl.sum(shares, axis=1)
        rounded = shares.to(y.dtype.element_ty)
        if UPCAST:
            rounded = rounded.to(tl.float32)
        sums = tl.dot(rounded, value, sums * kept[:, None], input_precision=PRECISION)
    # A row beyond the queries may have no near key.
    total = tl.where(places < queries, total, 1.0)
    tl.store(y, (sums / total[:, None]).to(y.dtype.element_ty), mask=wanted)


INTERPRETED = not isinstance(attention_kernel, triton.JITFunction)


def planned_attention(qkv: Tensor, plan: SegmentPlan, *, heads: int, reach: int | None = None) -> Tensor:
    """The attention of all tokens [B, n, H d] of the plan's samples; qkv [B, n, 3 H d].

    Where the plan's samples are tokens of others (see `SegmentPlan.of_tokens`), B is their number and n 1.
    """
    q, k, v = qkv.contiguous().flatten(0, 1).chunk(3, dim=1)
    y = _launch(q, k, v, plan, qkv.shape[1], heads, reach, first=False)
    return y.view(*qkv.shape[:2], -1)


def first_attention(
    q: Tensor, kv: Tensor, plan: SegmentPlan, *, heads: int, reach: int | None = None
) -> Tensor:
    """The attention of one query of each sample at its first place, [B, 1, H d]; kv [B, n, 2 H d]."""
    k, v = kv.contiguous().flatten(0, 1).chunk(2, dim=1)
    first = q[:, 0].contiguous()
    return _launch(first, k, v, plan, kv.shape[1], heads, reach, first=True).unsqueeze(1)


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: SegmentPlan,
    tokens: int,
    heads: int,
    reach: int | None,
    *,
    first: bool,
) -> Tensor:
    """y [len(q), H d] for rows of q, k and v whose columns are contiguous."""
    y = q.new_empty(q.shape)
    width = q.shape[1] // heads
    rows = LEAST if first else block_queries(width, q.dtype)
    offsets, samples, longest = plan.token_offsets, plan.samples, tokens
    if offsets is not None:
        samples, longest = len(offsets) - 1, plan.longest
    blocks = 1 if first else triton.cdiv(longest, rows)
    attention_kernel[(samples * blocks, heads)](
        q,
        k,
        v,
        y,
        plan.offsets if offsets is None else offsets,
        plan.sample_segments,
        tokens,
        blocks,
        q.stride(0),
        k.stride(0),
        y.stride(0),
        reach or 0,
        BLOCK_M=rows,
        FIRST=first,
        RAGGED=offsets is not None,
        # The interpreter's bfloat16 arithmetic is wrong; its casts are right.
        UPCAST=INTERPRETED,
        **constants_of(width, q.dtype, architecture_of(q.device), local=reach is not None),
        num_warps=ATTENTION_WARPS,
        num_stages=ATTENTION_STAGES,
    )
    return y


def block_queries(width: int, dtype: torch.dtype) -> int:
    """How many queries a tile has where all tokens of a sample have one."""
    return FEW_QUERIES if dtype == torch.float32 and width > WIDE_HEAD else BLOCK_QUERIES[dtype]


def constants_of(width: int, dtype: torch.dtype, architecture: str, *, local: bool) -> dict[str, object]:
    """What the kernel is compiled for by the width of a head, dtype, GPU and whether there is a reach."""
    few = local and SPILLS_FEW_KEYS not in family_of(architecture)
    return {
        "LOCAL": local,
        "SCALE": math.log2(math.e) * width**-0.5,
        "HEAD": width,
        "BLOCK_D": max(LEAST, triton.next_power_of_2(width)),
        "BLOCK_K": FEW_KEYS if few or width > WIDE_HEAD else BLOCK_KEYS[dtype],
        "PRECISION": product_precision(dtype, architecture),
    }
