"""Grouping a batch by expert set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mass_serve.kernels import group_by_expert_set
from mass_serve.kernels.segments import Segments

expert_sets = st.lists(
    st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True).map(sorted).map(tuple)
)


@given(expert_sets)
def test_every_sample_lies_in_the_segment_of_its_set(sets: list[tuple[int, ...]]) -> None:
    segments = group_by_expert_set(sets)
    seen: list[int] = []
    for i, expert_set in enumerate(segments.segment_expert_sets):
        members = segments.permutation[segments.segment_offsets[i] : segments.segment_offsets[i + 1]]
        assert members, "no segment is empty"
        assert list(members) == sorted(members), "a segment keeps its samples' own order"
        assert all(sets[sample] == expert_set for sample in members)
        seen += members
    assert sorted(seen) == list(range(len(sets)))
    assert len(set(segments.segment_expert_sets)) == len(segments.segment_expert_sets)


@given(expert_sets, st.randoms(use_true_random=False))
def test_the_segments_do_not_depend_on_the_order_of_the_batch(sets: list[tuple[int, ...]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(sets)
    random.shuffle(shuffled)
    one, other = group_by_expert_set(sets), group_by_expert_set(shuffled)
    assert one.segment_expert_sets == other.segment_expert_sets
    assert one.segment_offsets == other.segment_offsets


@pytest.mark.parametrize("offsets", [(0,), (1, 2), (0, 3), (0, 1, 0)])
def test_offsets_that_do_not_fit_are_refused(offsets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        Segments((0, 1), offsets, ((0,),))
