"""How the router's constants are chosen: by a rule where several are as good."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.routing import __main__ as routing
from benchmarks.routing.choose import Grid, Worths, cheapest, middle
from benchmarks.routing.replay import SERVED, Constants
from tests.benchmarks.test_suites import LABELS, suites

__all__ = ["suites"]  # the fixture

INPUTS = 100


def with_margin(margin: float) -> Constants:
    return replace(SERVED, second_pass_margin=margin)


def right(wrong: Sequence[int]) -> Worths:
    """One suite of one task, whose inputs are right but for those of these numbers."""
    values = torch.ones(INPUTS)
    values[list(wrong)] = 0.0
    return Worths([[values]])


def test_of_equally_good_weights_the_middle_is_taken() -> None:
    """Each of the three in the middle errs on two other inputs, those at the ends on many more."""
    worths = {
        0.0: right(range(30)),
        **{float(n): right([n, n + 10]) for n in (1, 2, 3)},
        4.0: right(range(40)),
    }
    grid: Grid = {(place,): with_margin(margin) for place, margin in enumerate(worths)}
    assert middle(grid, lambda one: worths[one.second_pass_margin]) == with_margin(2.0)


def test_weights_that_are_better_beyond_the_standard_error_are_taken_alone() -> None:
    worths = {0.0: right(range(30)), 1.0: right(range(20)), 2.0: right([0])}
    grid: Grid = {(place,): with_margin(margin) for place, margin in enumerate(worths)}
    assert middle(grid, lambda one: worths[one.second_pass_margin]) == with_margin(2.0)


def test_what_saves_passes_is_taken_where_it_costs_next_to_nothing() -> None:
    means = {1.0: 0.95, 2.0: 0.9895, 3.0: 0.99, 4.0: 0.9899}
    tried = [with_margin(margin) for margin in means]
    chosen = cheapest(tried, lambda one: Worths([[torch.full((INPUTS,), means[one.second_pass_margin])]]))
    assert chosen == with_margin(2.0)


def test_suites_and_their_tasks_weigh_the_same() -> None:
    large: Tensor = torch.zeros(1000)
    worths = Worths([[torch.ones(10), large], [torch.ones(10)]])
    assert worths.mean == pytest.approx(0.75)


def test_the_standard_error_is_that_of_the_difference_on_the_same_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    hard = torch.rand(2, INPUTS, generator=generator)
    differences = torch.rand(2, INPUTS, generator=generator)
    one, other = Worths([[*hard]]), Worths([[*(hard + differences)]])
    expected = float((differences.var(1) / INPUTS).sum().sqrt() / 2)
    assert one.standard_error(other) == pytest.approx(expected, rel=1e-4)
    assert one.standard_error(one) == 0


@pytest.mark.slow
def test_constants_are_chosen_from_recorded_inputs_and_reported(
    suites: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written, records = suites.parent / "routing.json", suites.parent / "records"
    asked = [str(suites), "--records", str(records), "--json", str(written)]
    monkeypatch.setattr(sys, "argv", ["routing", *asked])
    routing.main()
    first = json.loads(written.read_text())
    demo = first["suites"]["demo"]
    assert (len(demo["tasks"]), demo["inputs"]) == (8, 8 * LABELS * 2)
    assert list(demo["modes"]) == ["one_pass", "fast", "balanced", "exact"]
    assert demo["modes"]["exact"]["normalised_accuracy"] > 0.9
    assert first["chosen"] == demo["constants"], "one suite is chosen on itself"
    assert first["chosen"].keys() == asdict(SERVED).keys()
    assert "chosen on all: " in capsys.readouterr().out
    routing.main()
    assert json.loads(written.read_text()) == first, "what was recorded is used again"
