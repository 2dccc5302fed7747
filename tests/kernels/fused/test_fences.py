"""Kernels touch nothing but their tensors: NaN is on both sides of every operand, output and scratch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from mass_serve.backbone import ClassificationHead
from mass_serve.engine.heads import TaskHead
from mass_serve.kernels import (
    MaterialisedWeight,
    SeveralTasks,
    TaskDirections,
    segmented_added_rows,
    segmented_embedding,
    segmented_layer_norm,
    segmented_linear,
    segmented_positions,
    subspace_energies,
    subspace_residuals,
)
from mass_serve.kernels.attention.fused import first_attention, planned_attention
from mass_serve.kernels.backend import backend
from mass_serve.kernels.gate import gate
from mass_serve.kernels.heads.fused import Heads
from mass_serve.kernels.segment_plan import SegmentPlan
from tests.interpreter import DEVICE
from tests.kernels.fences import Fences
from tests.kernels.heads import heads_of_each_kind
from tests.kernels.projectors import random_projectors
from tests.kernels.segmented import Case
from tests.tiny import task_entry

ROWS = (0, 5, 11, 30, 31, 47, 60, 80)
OFFSETS = (0, 2, 2, 5)


def _same_between_fences(operation: Callable[..., Tensor], *operands: Any) -> None:
    """The result between fences is that without them, bit for bit; it is finite, and the fences stand."""
    fences = Fences()
    with backend("fused"):
        own = fences.around(operands)
        with fences.around_new_memory():
            found = operation(*own)
        assert torch.isfinite(found).all()
        assert fences.stand()
        # Only now: without fences a wrong kernel may harm any memory.
        assert torch.equal(found, operation(*operands))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("partly", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(("d_out", "d_in"), [(64, 96), (129, 257), (40, 588)])
def test_a_linear_touches_nothing_else(d_out: int, d_in: int, partly: bool, dtype: torch.dtype) -> None:
    case = Case.random(ROWS, d_out, d_in, (5, 0, 1, 38, 16), dtype, partly=partly).to(DEVICE)
    deltas = [one.folded(dtype) if isinstance(one, SeveralTasks) else one for one in case.deltas]
    deltas[3] = MaterialisedWeight(case.weight.clone(), deltas[3].bias)
    skip = torch.randn(ROWS[-1], d_out, device=DEVICE).to(dtype)

    def operation(x: Tensor, weight: Tensor, deltas: list[object], skip: Tensor) -> Tensor:
        return segmented_linear(x, weight, deltas, ROWS, activation="gelu", skip=skip)  # type: ignore[arg-type]

    _same_between_fences(operation, case.x, case.weight, deltas, skip)


@pytest.mark.parametrize("partly", [False, True], ids=["plain", "packed"])
def test_words_and_added_rows_touch_nothing_else(partly: bool) -> None:
    case = Case.random(ROWS, 41, 70, 12, torch.float32, partly=partly).to(DEVICE)
    deltas = [one.folded(torch.float32) if isinstance(one, SeveralTasks) else one for one in case.deltas]
    ids = torch.randint(0, 41, (ROWS[-1],), device=DEVICE)
    _same_between_fences(partial(segmented_embedding, row_offsets=ROWS), ids, case.weight, deltas)
    tables = [torch.randn(6, 70, device=DEVICE) for _ in deltas]
    places = torch.randint(-1, 6, (ROWS[-1],), device=DEVICE)
    x = torch.randn(ROWS[-1], 70, device=DEVICE)
    _same_between_fences(partial(segmented_added_rows, row_offsets=ROWS), x, tables, places)


@pytest.mark.parametrize("width", [64, 70])
def test_kernels_of_rows_touch_nothing_else(width: int) -> None:
    x = torch.randn(5, width, device=DEVICE)
    vectors = [list(torch.randn(3, width, device=DEVICE)) for _ in range(2)]
    _same_between_fences(partial(segmented_layer_norm, row_offsets=OFFSETS, eps=1e-5), x, *vectors)
    _same_between_fences(lambda own: gate(own, "silu"), x)
    patches, positions = (
        torch.randn(5, 7, width, device=DEVICE),
        list(torch.randn(3, 8, width, device=DEVICE)),
    )
    _same_between_fences(
        partial(segmented_positions, segment_offsets=OFFSETS), patches, vectors[0], positions
    )


@pytest.mark.parametrize("width", [16, 20])
def test_attention_in_images_touches_nothing_else(width: int) -> None:
    qkv = torch.randn(4, 7, 2 * 3 * width, device=DEVICE)
    both = partial(_attention, make=lambda: _plan_of(4, used=3))
    _same_between_fences(both, qkv[:, :1, : 2 * width].contiguous(), qkv)


@pytest.mark.parametrize("reach", [None, 3])
def test_attention_in_texts_touches_nothing_else(reach: int | None) -> None:
    offsets = (0, 5, 5, 75, 80, 83)
    qkv = torch.randn(83, 1, 2 * 3 * 16, device=DEVICE)
    make = partial(_plan_of(5, used=4).of_tokens, offsets)
    queries = torch.randn(5, 1, 2 * 16, device=DEVICE)
    _same_between_fences(partial(_attention, make=make, reach=reach), queries, qkv)


def _plan_of(samples: int, used: int) -> SegmentPlan:
    """A plan of two segments, whose last samples have none."""
    plan = SegmentPlan(samples, 2, 1, DEVICE)
    plan.update([0, 1, used], [torch.zeros(1, dtype=torch.int64)] * 2, [False, False])
    return plan


def _attention(
    queries: Tensor, qkv: Tensor, make: Callable[[], SegmentPlan], reach: int | None = None
) -> Tensor:
    """The attention of all tokens, and behind it that of the first ones."""
    plan = make()
    kv = qkv[..., qkv.shape[-1] // 3 :]
    every = planned_attention(qkv, plan, heads=2, reach=reach)
    return torch.cat([every.flatten(), first_attention(queries, kv, plan, heads=2, reach=reach).flatten()])


def test_the_routers_kernels_touch_nothing_else() -> None:
    projectors = random_projectors(3, 38, 129).float().to(DEVICE)
    _same_between_fences(subspace_residuals, torch.randn(5, 129, device=DEVICE), projectors)
    directions = TaskDirections.of(list(projectors), list(torch.rand(3, 38, device=DEVICE)))
    x = torch.randn(2, 33, 129, device=DEVICE)
    _same_between_fences(subspace_energies, x, directions)
    in_parts = TaskDirections.of(list(projectors), list(torch.rand(3, 38, device=DEVICE)), torch.bfloat16)
    _same_between_fences(subspace_energies, x.bfloat16(), in_parts)


def test_the_kernels_of_heads_touch_nothing_else() -> None:
    wide = ClassificationHead(torch.randn(300, 129), bias=torch.randn(300)).to(DEVICE)
    every = [*heads_of_each_kind(129, DEVICE), TaskHead(task_entry("wide", ("label",)), wide)]
    heads = [one.for_kernels() for one in every]
    asked, size = Heads(heads).items([(0, 2), (1, 0), (7, 1), (2, 1), (3, 2), (4, 0), (7, 0), (2, 0)])
    items, x = torch.tensor(asked, device=DEVICE), torch.randn(3, 129, device=DEVICE)
    _same_between_fences(lambda x, items, *own: Heads(own)(x, items, size), x, items, *heads)


@triton.jit  # type: ignore[untyped-decorator]
def _shifted_kernel(x: Any, y: Any, BLOCK: tl.constexpr, READ: tl.constexpr, WRITTEN: tl.constexpr) -> None:
    places = tl.arange(0, BLOCK)
    tl.store(y + places + WRITTEN, tl.load(x + places + READ))


def _shifted(x: Tensor, read: int, written: int) -> Tensor:
    y = x.new_empty(len(x))
    _shifted_kernel[(1,)](x, y, BLOCK=len(x), READ=read, WRITTEN=written)
    return y


@pytest.mark.parametrize(("read", "written"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_a_kernel_that_reads_or_writes_beside_a_tensor_is_found(read: int, written: int) -> None:
    with pytest.raises(AssertionError):
        _same_between_fences(lambda x: _shifted(x, read, written), torch.ones(16, device=DEVICE))


def test_a_kernel_that_does_not_is_not() -> None:
    _same_between_fences(lambda x: _shifted(x, 0, 0), torch.ones(16, device=DEVICE))
