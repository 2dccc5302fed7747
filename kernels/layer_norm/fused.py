"""Segmented LayerNorm in one Triton kernel.

For the rows `offsets[i]:offsets[i+1]`, each row in a program of its own:

    y = (x - mean(x)) / sqrt(var(x) + eps) * w_i + b_i

x and y [N, D], w_i and b_i [D], of one dtype; mean and variance in float32, the variance from differences to
the mean. Only y is written, every element once; rows in the plan's tail come out as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from mass_serve.kernels.records import NormField, norm_fields, record
from mass_serve.kernels.segment_plan import SegmentPlan

ROW_WARPS = 4
WEIGHT: tl.constexpr = tl.constexpr(NormField.WEIGHT.value)
BIAS: tl.constexpr = tl.constexpr(NormField.BIAS.value)


@triton.jit(do_not_specialize=["record_length", "field", "tokens"])
def layer_norm_kernel(
    x,
    y,
    sample_segments,
    table,
    record_length,
    field,
    tokens,
    width,
    eps,
    BLOCK: tl.constexpr,
):
    """One row of the LayerNorm of this module's docstring."""
    row = tl.program_id(0)
    segment = tl.load(sample_segments + row // tokens)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    places = row.to(tl.int64) * width + columns
    if segment < 0:
        tl.store(y + places, tl.zeros((BLOCK,), dtype=y.dtype.element_ty), mask=inside)
        return
    own = table + segment.to(tl.int64) * record_length + field
    weight = tl.load(own + WEIGHT).to(tl.pointer_type(x.dtype.element_ty))
    bias = tl.load(own + BIAS).to(tl.pointer_type(x.dtype.element_ty))
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, values - tl.sum(values) / width, 0.0)
    normed = centred / tl.sqrt(tl.sum(centred * centred) / width + eps)
    w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + places, (normed * w + b).to(y.dtype.element_ty), mask=inside)


def segmented_layer_norm(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], row_offsets: Sequence[int], eps: float
) -> Tensor:
    """The LayerNorm of this module's docstring, with a plan made for this one call."""
    records = [record(len(NormField), {0: norm_fields(w, b)}) for w, b in zip(weights, biases, strict=True)]
    plan = SegmentPlan(x.shape[0], len(records), len(NormField), x.device)
    plan.update(row_offsets, records, [False] * len(records))
    return planned_layer_norm(x, plan, field=0, tokens=1, eps=eps)


def planned_layer_norm(x: Tensor, plan: SegmentPlan, *, field: int, tokens: int, eps: float) -> Tensor:
    """The LayerNorm for `tokens` rows of each of the plan's samples, weights by the plan's records."""
    x = x.contiguous()
    y = x.new_empty(x.shape)
    width = x.shape[-1]
    layer_norm_kernel[(x.numel() // width,)](
        x,
        y,
        plan.sample_segments,
        plan.table,
        plan.table.shape[1],
        field,
        tokens,
        width,
        eps,
        BLOCK=triton.next_power_of_2(width),
        num_warps=ROW_WARPS,
    )
    return y
