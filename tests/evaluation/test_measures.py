"""Intervals and calibration against values that others computed, or that follow by hand."""

from __future__ import annotations

import random

import pytest

from mass_serve.evaluation.measures import (
    ConfidenceBin,
    expected_calibration_error,
    mean_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    # R: prop.test(right, images, correct = FALSE)$conf.int
    [
        (0, 10, 0.0, 0.277533),
        (5, 10, 0.236593, 0.763407),
        (81, 263, 0.255290, 0.366212),
        (10, 10, 0.722467, 1.0),
    ],
)
def test_wilson(right: int, images: int, low: float, high: float) -> None:
    assert wilson_interval(right, images) == pytest.approx((low, high), abs=2e-5)


def test_the_interval_of_a_mean_of_one_is_its_own() -> None:
    interval = wilson_interval(7, 9)
    assert mean_interval([7 / 9], [interval]) == pytest.approx(interval)


def test_the_interval_of_a_mean_holds_it_about_as_often_as_it_says() -> None:
    rng = random.Random(0)
    shares, images, held, trials = (0.6, 0.9, 0.99), (40, 80, 120), 0, 2000
    for _ in range(trials):
        right = [sum(rng.random() < p for _ in range(n)) for p, n in zip(shares, images, strict=True)]
        seen = [r / n for r, n in zip(right, images, strict=True)]
        intervals = [wilson_interval(r, n) for r, n in zip(right, images, strict=True)]
        low, high = mean_interval(seen, intervals)
        held += low <= sum(shares) / 3 <= high
    assert 0.93 <= held / trials <= 0.985


def test_calibration_error_weighs_bins_by_their_images() -> None:
    bins = [ConfidenceBin(30, 0.9, 0.8), ConfidenceBin(10, 0.5, 0.7)]
    assert expected_calibration_error(bins) == pytest.approx(0.75 * 0.1 + 0.25 * 0.2)
