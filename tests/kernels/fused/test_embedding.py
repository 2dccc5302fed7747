"""The fused words and added rows against their reference and against float64."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import (
    BaseOnly,
    Delta,
    FoldedSides,
    MaterialisedWeight,
    segmented_added_rows,
    segmented_embedding,
)
from mass_serve.kernels.backend import backend
from mass_serve.kernels.embedding import reference
from mass_serve.kernels.embedding.fused import planned_added_rows, planned_embedding
from mass_serve.kernels.low_rank.places import LinearPlace, linear_fields
from mass_serve.kernels.records import LinearField, PositionField, position_fields, record
from mass_serve.kernels.segment_plan import SegmentPlan
from tests.interpreter import DEVICE
from tests.kernels.segmented import RAGGED_RANKS, TASKS, delta_to, dense_weight, random_blocks, random_delta
from tests.kernels.splits import PATTERNS, offsets

TOLERANCES = [(torch.float32, 1e-5, 1e-5), (torch.float16, 5e-3, 5e-3), (torch.bfloat16, 4e-2, 2e-2)]
SHAPES = [(53, 40, 9), (61, 129, 38), (200, 64, 16), (17, 768, 5)]  # vocabulary, width, rank


def _case(
    segments: int, vocabulary: int, width: int, rank: int | Sequence[int], dtype: torch.dtype
) -> tuple[Tensor, list[Delta]]:
    """A table, and a change of every form for the segments in turn."""
    torch.manual_seed(vocabulary)
    table = torch.randn(vocabulary, width).to(dtype)
    blocks = random_blocks(vocabulary, width, rank, dtype)
    k = max(1, sum(block.rank for block in blocks) // 2)
    forms: list[Delta] = [
        random_delta((1,), blocks, dtype),
        random_delta((0, 2, 4), blocks, dtype),
        BaseOnly(None),
        FoldedSides(torch.randn(k, width).to(dtype) / k, torch.randn(k, vocabulary).to(dtype), None),
        MaterialisedWeight(torch.randn(vocabulary, width).to(dtype), None),
        random_delta((4,), blocks, dtype),
    ]
    return table, [forms[i % len(forms)] for i in range(segments)]


def _fused(ids: Tensor, table: Tensor, deltas: list[Delta], rows: Sequence[int]) -> Tensor:
    with backend("fused"):
        own = [delta_to(delta, DEVICE) for delta in deltas]
        return segmented_embedding(ids.to(DEVICE), table.to(DEVICE), own, rows).cpu()


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize(
    ("shape", "pattern"),
    [*((SHAPES[0], pattern) for pattern in PATTERNS), *((s, "zipf") for s in SHAPES[1:])],
)
def test_every_row_is_one_of_its_segments_table(
    shape: tuple[int, int, int], pattern: str, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    vocabulary, width, rank = shape
    rows = tuple(5 * offset for offset in offsets(pattern, samples=9, sets=5))
    table, deltas = _case(len(rows) - 1, vocabulary, width, rank, dtype)
    ids = torch.randint(0, vocabulary, (rows[-1],))
    found = _fused(ids, table, deltas, rows)
    assert found.dtype == dtype
    exact = [dense_weight(table, delta) for delta in deltas]
    cuts = zip(exact, rows, rows[1:], strict=False)
    wanted = torch.cat([whole[ids[start:stop]] for whole, start, stop in cuts])
    torch.testing.assert_close(found.double(), wanted, atol=2 * atol, rtol=2 * rtol)
    by_reference = reference.segmented_embedding(ids, table, deltas, rows)
    torch.testing.assert_close(found, by_reference, atol=2 * atol, rtol=2 * rtol)


@pytest.mark.parametrize("ranks", RAGGED_RANKS)
def test_tasks_have_ranks_of_their_own(ranks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    table, blocks = torch.randn(47, 36), random_blocks(47, 36, ranks, torch.float32)
    deltas: list[Delta] = [random_delta((task,), blocks, torch.float32) for task in range(TASKS)]
    rows = tuple(range(0, 3 * TASKS + 1, 3))
    ids = torch.randint(0, 47, (rows[-1],))
    found = _fused(ids, table, deltas, rows)
    wanted = torch.cat([dense_weight(table, deltas[i])[ids[3 * i : 3 * i + 3]] for i in range(TASKS)])
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)


def test_a_row_has_the_bits_that_it_has_alone() -> None:
    table, deltas = _case(2, 61, 70, 38, torch.float32)
    ids = torch.randint(0, 61, (40,))
    whole = _fused(ids, table, deltas, (0, 23, 40))
    assert torch.equal(_fused(ids[23:], table, deltas[1:], (0, 17)), whole[23:])
    for count in (1, 2, 5, 16, 17):
        assert torch.equal(_fused(ids[:count], table, deltas[:1], (0, count)), whole[:count])


def test_the_tail_of_a_plan_is_zero() -> None:
    table, deltas = _case(1, 30, 40, 7, torch.float32)
    table, delta = table.to(DEVICE), delta_to(deltas[0], DEVICE)
    plan = SegmentPlan(20, 3, len(LinearField), DEVICE)
    plan.update((0, 9), [record(len(LinearField), {0: linear_fields(delta, table)})], [False])
    ids = torch.arange(20, device=DEVICE)
    y = planned_embedding(ids, plan, LinearPlace(0, 30, 40, 7, 7, shared_weight=True), table.dtype)
    assert torch.count_nonzero(y[9:]) == 0
    assert torch.count_nonzero(y[:9]) == 9 * 40
    rows = SegmentPlan(20, 3, len(PositionField), DEVICE)
    rows.update((0, 9), [record(len(PositionField), {0: position_fields(None, table)})], [False])
    added = planned_added_rows(torch.ones_like(y), rows, ids, field=0)
    assert torch.equal(added, torch.cat([1 + table[:9], torch.zeros_like(y[9:])]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_rows_are_added_by_place_and_segment(pattern: str, dtype: torch.dtype) -> None:
    rows = tuple(4 * offset for offset in offsets(pattern, samples=7, sets=4))
    torch.manual_seed(len(rows))
    x, places = torch.randn(rows[-1], 40).to(dtype), torch.randint(-1, 6, (rows[-1],))
    tables = [torch.randn(6, 40).to(dtype) for _ in rows[1:]]
    with backend("fused"):
        own = [table.to(DEVICE) for table in tables]
        found = segmented_added_rows(x.to(DEVICE), own, places.to(DEVICE), rows).cpu()
    wanted = reference.segmented_added_rows(x, tables, places, rows)
    rounding = 1e-2 if dtype == torch.bfloat16 else 0.0  # the interpreter's casts round otherwise
    torch.testing.assert_close(found, wanted, atol=rounding, rtol=rounding)


def test_what_does_not_fit_is_refused() -> None:
    table, deltas = _case(1, 30, 40, 7, torch.float32)
    with pytest.raises(ValueError, match="1 segments over 3 rows do not fit offsets"):
        _fused(torch.zeros(3, dtype=torch.int64), table, deltas, (0, 2))
