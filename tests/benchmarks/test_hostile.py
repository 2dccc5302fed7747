"""The commands of `benchmarks.hostile` say the figures, and end with 1 where a bound was missed."""

from __future__ import annotations

import pytest

from benchmarks.hostile.attacks import MIB, ORDINARY_GROWTH
from benchmarks.hostile.crowd import Crowd, figures
from benchmarks.hostile.lines import Line, show
from benchmarks.hostile.throughput import compared

CALM = 500 * MIB


def crowd(*statuses: int, growth: int = 0) -> Crowd:
    """A crowd whose requests ended so."""
    return Crowd([("native form", 0.1, status) for status in statuses], [CALM, CALM + growth])


def test_the_exit_status_tells_of_a_bound_that_was_missed(capsys: pytest.CaptureFixture[str]) -> None:
    assert show([Line("good"), Line("good too")]) == 0
    assert show([Line("good"), Line("bad", held=False), Line("good again")]) == 1
    assert capsys.readouterr().out.split("\n") == ["good", "good too", "good", "bad", "good again", ""]


def test_everybody_in_a_crowd_is_answered() -> None:
    assert show(figures(crowd(200, 200), CALM)) == 0
    assert show(figures(crowd(200, 429), CALM)) == 1
    assert show(figures(crowd(200, -1), CALM)) == 1
    assert show(figures(crowd(), CALM)) == 1, "nobody came"


def test_the_memory_of_a_crowd_is_bounded() -> None:
    assert show(figures(crowd(200, growth=ORDINARY_GROWTH), CALM)) == 0
    assert show(figures(crowd(200, growth=ORDINARY_GROWTH + 1), CALM)) == 1


def test_a_version_is_as_fast_as_another() -> None:
    line = compared("images", [97.0, 50.0, 120.0], [100.0, 100.0, 100.0])
    assert line == Line(
        "images: 97.0 images a second, 100.0 there, ratio of medians 0.970 (rounds 0.500 to 1.200)", held=True
    )
    assert not compared("images", [96.9], [100.0]).held
