"""Familiarity: a product of shares."""

from __future__ import annotations

import pytest

from mass_serve.router.familiarity import familiarity


def test_it_is_likeness_times_the_mean_cosine_times_confidence() -> None:
    assert familiarity(0.5, 0.4, 0.9, 0.8) == pytest.approx(0.5 * 0.6 * 0.8)
    assert familiarity(0.5, 0.36, 0.36, 1.0) == pytest.approx(0.18), "one embedding alone: its own cosine"


@pytest.mark.parametrize(("first", "second"), [(-0.4, 0.9), (0.4, -0.9), (-0.4, -0.9)])
def test_an_embedding_that_points_away_is_not_familiar(first: float, second: float) -> None:
    assert familiarity(1.0, first, second, 1.0) == 0.0
