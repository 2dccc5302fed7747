"""Plans: which rows a tile has, and what an update changes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mass_serve.kernels import segment_plan
from mass_serve.kernels.records import TileField
from mass_serve.kernels.segment_plan import SegmentPlan, Tiling
from mass_serve.kernels.transfers import pinned_zeros
from tests.kernels.splits import PATTERNS, offsets

CPU = torch.device("cpu")
TILINGS = [Tiling(tokens, block, own) for tokens in (1, 5, 50) for block in (16, 64) for own in (False, True)]


def _plan(samples: int, capacity: int) -> SegmentPlan:
    return SegmentPlan(samples, capacity, 1, CPU)


def _records(count: int) -> list[Tensor]:
    return [torch.tensor([7 + i]) for i in range(count)]


def _rows_of_tiles(tiles: Tensor) -> list[int]:
    return [row for first, stop, _, _ in tiles.tolist() for row in range(first, stop)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("tiling", TILINGS)
def test_tiles_cover_every_row_once_and_name_its_segments(pattern: str, tiling: Tiling) -> None:
    cut = offsets(pattern, samples=9, sets=4)
    plan = _plan(samples=11, capacity=12)  # two samples are the tail
    own = [i % 3 == 1 for i in range(len(cut) - 1)]
    plan.update(cut, _records(len(cut) - 1), own)
    tiles = plan.tiles(tiling)
    assert sorted(_rows_of_tiles(tiles)) == list(range(11 * tiling.tokens))
    segment_of = [i for i, (a, b) in enumerate(pairwise(cut)) for _ in range((b - a) * tiling.tokens)]
    segment_of += [-1] * (11 * tiling.tokens - len(segment_of))
    for first, stop, first_segment, last_segment in tiles.tolist():
        assert stop - first <= tiling.block
        if first < stop:
            assert (first_segment, last_segment) == (segment_of[first], segment_of[stop - 1])
            inner = {segment for segment in range(first_segment, last_segment + 1) if segment >= 0}
            assert len(inner) <= 1 or not (tiling.per_segment or any(own[i] for i in inner))


@st.composite
def passes(draw: st.DrawFn) -> tuple[int, int, list[int], bool]:
    """Tokens of a sample, samples of the plan, offsets of its segments, and whether some own weights."""
    tokens = draw(st.sampled_from((1, 5, 50, 197, 257)))
    samples = draw(st.integers(1, 256))
    used = draw(st.integers(0, samples))
    inner = draw(st.lists(st.integers(0, used), max_size=min(samples, 20) - 1))
    return tokens, samples, [0, *sorted(inner), used], draw(st.booleans())


@settings(max_examples=200, deadline=None)
@given(passes(), st.sampled_from((16, 64, 128)), st.booleans())
def test_tiles_cover_each_row_once_and_few_are_launched_without_rows(
    drawn: tuple[int, int, list[int], bool], block: int, per_segment: bool
) -> None:
    tokens, samples, cut, own = drawn
    count = len(cut) - 1
    plan = SegmentPlan(samples, samples, 1, CPU, may_own_weights=own)
    plan.update(cut, _records(count), [own and i % 2 == 0 for i in range(count)])
    tiles = plan.tiles(Tiling(tokens, block, per_segment))
    assert sorted(_rows_of_tiles(tiles)) == list(range(samples * tokens))
    used = int((tiles[:, TileField.END_ROW] > tiles[:, TileField.FIRST_ROW]).sum())
    # Of every span of rows that ends where it must, one tile that is not full, and room for it.
    divided = per_segment or own
    assert len(tiles) - used <= (samples if divided else 1)
    assert len(tiles) <= samples * -(-tokens // block)
    if not divided and used >= 20:
        assert used / len(tiles) >= 0.95


@pytest.mark.parametrize(
    ("samples", "tokens", "block"), [(64, 197, 64), (64, 1, 64), (1, 197, 128), (7, 50, 64)]
)
def test_segments_of_one_sample_each_fill_all_tiles_that_are_launched(
    samples: int, tokens: int, block: int
) -> None:
    """What a graph has room for is what some batch needs: for 64 images of 197 rows 256, and not 261."""
    plan = _plan(samples, samples)
    plan.update(range(samples + 1), _records(samples), [False] * samples)
    tiles = plan.tiles(Tiling(tokens, block, per_segment=True))
    assert len(tiles) == samples * -(-tokens // block)
    assert bool((tiles[:, TileField.END_ROW] > tiles[:, TileField.FIRST_ROW]).all())


def test_a_plan_without_tiles_for_weights_of_its_own_takes_no_such_segment() -> None:
    plan = SegmentPlan(4, 2, 1, CPU, may_own_weights=False)
    with pytest.raises(ValueError, match="weight matrices of its own"):
        plan.update([0, 2, 4], _records(2), [False, True])


def test_a_plan_has_room_for_the_most_tiles_that_segments_can_make() -> None:
    plan = _plan(samples=7, capacity=6)
    plan.update(range(7), _records(6), [True] * 6)  # a tile for each, and one for the tail
    tiles = plan.tiles(Tiling(17, 16, per_segment=True))
    assert sorted(_rows_of_tiles(tiles)) == list(range(7 * 17))


def test_the_maps_that_are_known_are_those_that_are_asked_for_later() -> None:
    for own in ([False] * 4, [False, True, True, False], [True] * 4):
        known = SegmentPlan(11, 12, 1, CPU, tilings=TILINGS)
        asked = _plan(samples=11, capacity=12)
        for cut in ((0, 2, 2, 7, 9), (0, 0, 1, 4, 11), (0, 3, 5, 8, 8)):
            for plan in (known, asked):
                plan.update(cut, _records(4), own)
            for tiling in TILINGS:
                assert torch.equal(known.tiles(tiling), asked.tiles(tiling))


def test_an_update_changes_the_tensors_in_place_and_leaves_nothing_of_before() -> None:
    plan, fresh = _plan(8, 6), _plan(8, 6)
    tiling = Tiling(5, 16, per_segment=True)
    plan.update((0, 1, 2, 3, 4, 5, 8), _records(6), [False] * 6)
    before = [plan.offsets, plan.sample_segments, plan.table, plan.tiles(tiling)]
    plan.update((0, 3, 6), _records(2), [False, True])
    after = [plan.offsets, plan.sample_segments, plan.table, plan.tiles(tiling)]
    assert [t.data_ptr() for t in before] == [t.data_ptr() for t in after]
    fresh.update((0, 3, 6), _records(2), [False, True])
    assert torch.equal(plan.offsets, fresh.offsets)
    assert torch.equal(plan.sample_segments, fresh.sample_segments)
    assert torch.equal(plan.tiles(tiling), fresh.tiles(tiling))
    assert plan.sample_segments.tolist() == [0, 0, 0, 1, 1, 1, -1, -1]
    assert plan.table[:2].flatten().tolist() == [7, 8]


@pytest.mark.parametrize("cut", [(0, 9), (1, 4), (0, 1, 2, 3), (0,)])
def test_segments_that_do_not_fit_are_refused(cut: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        _plan(8, 2).update(cut, _records(max(1, len(cut) - 1)), [False] * max(1, len(cut) - 1))


@pytest.mark.parametrize("own_weights", [[False, False, False], [False, True, False]])
def test_the_tokens_of_a_plans_samples_are_a_plan_of_the_same_records(own_weights: list[bool]) -> None:
    plan = _plan(samples=4, capacity=3)
    plan.update((0, 1, 1, 4), _records(3), own_weights)
    of_tokens = plan.of_tokens((0, 3, 23, 24, 31))
    other = _plan(samples=31, capacity=3)
    other.update((0, 3, 3, 31), _records(3), own_weights)
    assert of_tokens.samples == 31
    assert of_tokens.offsets.tolist() == other.offsets.tolist()
    assert of_tokens.sample_segments.tolist() == other.sample_segments.tolist()
    assert torch.equal(of_tokens.table, other.table)
    for tiling in TILINGS[:4]:
        assert torch.equal(of_tokens.tiles(tiling), other.tiles(tiling))


def test_an_update_takes_what_is_new_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, (first, second) = _plan(samples=4, capacity=2), _records(2)
    sent: list[Tensor] = []

    def counted(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        sent.append(pinned_zeros(length, dtype, device))
        return sent[-1]

    monkeypatch.setattr(segment_plan, "pinned_zeros", counted)
    plan.update([0, 3], [first], [False])
    plan.update([0, 3], [first], [False])
    assert len(sent) == 1
    plan.update([0, 3], [second], [False])
    assert plan.table[0].tolist() == second.tolist()
    plan.update([0, 2], [second], [False])
    assert plan.sample_segments.tolist() == [0, 0, -1, -1]
    plan.update([0, 2, 4], [second, first], [False, False])
    assert plan.sample_segments.tolist() == [0, 0, 1, 1]
    assert plan.table.tolist() == [second.tolist(), first.tolist()]
    assert len(sent) == 4
