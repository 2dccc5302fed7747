"""What the baselines are called."""

from __future__ import annotations

from mass_serve.cli.evaluation_table import BASELINES
from mass_serve.evaluation.baselines import NAMES, TITLES
from mass_serve.merging.methods import METHODS


def test_every_method_is_measured_under_its_own_name() -> None:
    assert {method.name for method in METHODS} <= set(NAMES)
    assert len({method.name for method in METHODS}) == len(METHODS)


def test_the_report_and_its_table_have_the_same_baselines() -> None:
    assert sorted(NAMES) == sorted(BASELINES) == sorted(TITLES)
