"""Segmented positions in one Triton kernel.

For the samples `offsets[i]:offsets[i+1]`, each token in a program of its own:

    y[:, 0] = class_i + positions_i[0]                     where there is a class token
    y[:, k] = positions_i[k]                               for the other rows that stand before the patches
    y[:, N + j] = patches[:, j] + positions_i[N + j]

with N tokens before the patches. patches [B, L - N, D], y [B, L, D], class_i [D], positions_i [L, D], of one
dtype, added in float32. Only y is written, every element once; samples in the plan's tail come out as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from mass_serve.kernels.records import PositionField, position_fields, record
from mass_serve.kernels.segment_plan import SegmentPlan

TOKEN_WARPS = 4
CLASS_TOKEN: tl.constexpr = tl.constexpr(PositionField.CLASS_TOKEN.value)
POSITIONS: tl.constexpr = tl.constexpr(PositionField.POSITIONS.value)


@triton.jit(do_not_specialize=["record_length", "field", "tokens", "before"])
def positions_kernel(
    patches,
    y,
    sample_segments,
    table,
    record_length,
    field,
    tokens,
    before,
    width,
    BLOCK: tl.constexpr,
):
    """One token of this module's docstring."""
    row = tl.program_id(0)
    sample, token = row // tokens, row % tokens
    segment = tl.load(sample_segments + sample)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    place = y + row.to(tl.int64) * width + columns
    if segment < 0:
        tl.store(place, tl.zeros((BLOCK,), dtype=y.dtype.element_ty), mask=inside)
        return
    fields = table + segment.to(tl.int64) * record_length + field
    position = tl.load(fields + POSITIONS).to(tl.pointer_type(y.dtype.element_ty)) + token * width
    values = tl.load(position + columns, mask=inside, other=0.0).to(tl.float32)
    class_token = tl.load(fields + CLASS_TOKEN)
    if token >= before:
        own = patches + (row.to(tl.int64) - (sample + 1).to(tl.int64) * before) * width
        values += tl.load(own + columns, mask=inside, other=0.0).to(tl.float32)
    elif (token == 0) & (class_token != 0):
        own = class_token.to(tl.pointer_type(y.dtype.element_ty))
        values += tl.load(own + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, values.to(y.dtype.element_ty), mask=inside)


def segmented_positions(
    patches: Tensor,
    class_tokens: Sequence[Tensor] | None,
    positions: Sequence[Tensor],
    segment_offsets: Sequence[int],
) -> Tensor:
    """The tokens of this module's docstring, with a plan made for this one call."""
    firsts: Sequence[Tensor | None] = class_tokens or [None for _ in positions]
    pairs = zip(firsts, positions, strict=True)
    records = [record(len(PositionField), {0: position_fields(first, own)}) for first, own in pairs]
    plan = SegmentPlan(patches.shape[0], len(records), len(PositionField), patches.device)
    plan.update(segment_offsets, records, [False] * len(records))
    return planned_positions(patches, plan, field=0, length=len(positions[0]))


def planned_positions(patches: Tensor, plan: SegmentPlan, *, field: int, length: int) -> Tensor:
    """The tokens [B, length, D] of the plan's samples; class tokens and positions by the plan's records."""
    samples, others, width = patches.shape
    y = patches.new_empty(samples, length, width)
    positions_kernel[(samples * length,)](
        patches,
        y,
        plan.sample_segments,
        plan.table,
        plan.table.shape[1],
        field,
        length,
        length - others,
        width,
        BLOCK=triton.next_power_of_2(width),
        num_warps=TOKEN_WARPS,
    )
    return y
