"""Segmented positions in one Triton kernel.

For the samples `offsets[i]:offsets[i+1]`, each token in a program of its own:

    y[:, 0] = class_i + positions_i[0]
    y[:, 1 + j] = patches[:, j] + positions_i[1 + j]

patches [B, L - 1, D], y [B, L, D], class_i [D], positions_i [L, D], of one dtype, added in float32. Only y is
written, every element once; samples in the plan's tail come out as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from mass_serve.kernels.segment_plan import SegmentPlan

# What a segment has, as it stands in its record: the addresses of class_i and positions_i.
POSITION_FIELDS = 2
TOKEN_WARPS = 4


@triton.jit
def positions_kernel(
    patches,
    y,
    sample_segments,
    table,
    record_length,
    field,
    tokens,
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
    record = table + segment.to(tl.int64) * record_length + field
    own = tl.load(record).to(tl.pointer_type(y.dtype.element_ty))
    if token > 0:
        own = patches + (row.to(tl.int64) - sample - 1) * width
    position = tl.load(record + 1).to(tl.pointer_type(y.dtype.element_ty)) + token * width
    values = tl.load(own + columns, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(position + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, values.to(y.dtype.element_ty), mask=inside)


def segmented_positions(
    patches: Tensor,
    class_embeddings: Sequence[Tensor],
    positions: Sequence[Tensor],
    segment_offsets: Sequence[int],
) -> Tensor:
    """The tokens of this module's docstring, with a plan made for this one call."""
    pairs = zip(class_embeddings, positions, strict=True)
    records = [torch.tensor([first.data_ptr(), rest.data_ptr()]) for first, rest in pairs]
    plan = SegmentPlan(patches.shape[0], len(records), POSITION_FIELDS, patches.device)
    plan.update(segment_offsets, records, [False] * len(records))
    return planned_positions(patches, plan, field=0)


def planned_positions(patches: Tensor, plan: SegmentPlan, *, field: int) -> Tensor:
    """The tokens of the plan's samples, embeddings by the plan's records."""
    samples, others, width = patches.shape
    y = patches.new_empty(samples, others + 1, width)
    positions_kernel[(samples * (others + 1),)](
        patches,
        y,
        plan.sample_segments,
        plan.table,
        plan.table.shape[1],
        field,
        others + 1,
        width,
        BLOCK=triton.next_power_of_2(width),
        num_warps=TOKEN_WARPS,
    )
    return y
