"""The pace of late: what came last counts most."""

from __future__ import annotations

import pytest

from mass_serve.server.serving.pace import PACE_MEMORY, Pace


def test_before_anything_was_done_everything_takes_no_time() -> None:
    assert Pace().per_unit == 0.0


def test_the_pace_is_that_of_all_work_weighed_by_its_age() -> None:
    pace = Pace(memory=0.5)
    pace.observe(10, 20.0)
    assert pace.per_unit == 2.0
    pace.observe(5, 5.0)
    assert pace.per_unit == (0.5 * 20 + 5) / (0.5 * 10 + 5)
    pace.observe(1, 9.0)
    assert pace.per_unit == pytest.approx((0.25 * 20 + 0.5 * 5 + 9) / (0.25 * 10 + 0.5 * 5 + 1))


def test_a_batch_counts_for_four_fifths_when_the_next_has_come() -> None:
    pace = Pace()
    pace.observe(1, 1.0)
    pace.observe(1, 0.0)
    assert pace.per_unit == pytest.approx(0.8 / 1.8)
    assert PACE_MEMORY == 0.8
