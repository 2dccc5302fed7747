"""From the options of a build to the rule by which its store chooses ranks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from mass_serve.model_store.build_options import RANK_OPTIONS, BuildOptions
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.field_types import LARGEST_SIZE
from mass_serve.model_store.format.rank_rules import (
    LARGEST_BUDGET,
    BudgetRule,
    EnergyRule,
    FixedRankRule,
    RankRule,
    RatioRule,
)

_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_TIMES, _OVER_TASKS = re.compile(f"{_NUMBER}x"), re.compile(f"{_NUMBER}/T")
EACH_ITS_SHARE = "1/T"


def rank_rule(options: BuildOptions, num_tasks: int) -> RankRule:
    """Returns the rule that the options name; without any that of the ratio 1/T.

    The level of a budget is not known yet: it is 0, at which nothing is left out. Raises StoreError for two
    rules, and for values out of range.
    """
    given = [name for name in RANK_OPTIONS if getattr(options, name) is not None]
    refuse_two_rules(given)
    name = given[0] if given else "compression_ratio"
    return rule_of_option(name, getattr(options, name) if given else EACH_ITS_SHARE, num_tasks)


def refuse_two_rules(given: Sequence[str]) -> None:
    """Raises StoreError for more than one option that chooses ranks, by the names that they were given by."""
    if len(given) > 1:
        raise StoreError(f"{' and '.join(given)} choose the ranks in different ways: give one of them")


def rule_of_option(name: str, value: Any, num_tasks: int = 1) -> RankRule:
    """Returns the rule that one of `RANK_OPTIONS` names, for a store of so many tasks.

    Raises StoreError for a value out of range.
    """
    if name == "rank":
        return _fixed_rank(value)
    if name == "energy":
        return EnergyRule(share=_energy(value))
    if name == "budget":
        return BudgetRule(times=_times(value), level=0.0)
    return ratio_rule(value, num_tasks)


def ratio_rule(value: float | str, num_tasks: int) -> RatioRule:
    """Returns the rule of a compression ratio: a share, or N/T such as 2/T, for a store of T `num_tasks`.

    Raises StoreError for a value out of range.
    """
    found = _OVER_TASKS.fullmatch(str(value))
    if found and 0 < float(found[1]) <= LARGEST_BUDGET:
        return RatioRule.of_budget(float(found[1]), num_tasks)
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise StoreError(
            "the compression ratio must be above 0 and at most 1, or a number above 0 over T, the number of"
            f" tasks, such as 2/T, not {str(value)[:80]}"
        )
    return RatioRule(compression_ratio=share)


def _fixed_rank(rank: int) -> FixedRankRule:
    if not 1 <= rank <= LARGEST_SIZE:
        raise StoreError(f"the rank must be from 1 to {LARGEST_SIZE}, not {rank}")
    return FixedRankRule(rank=rank)


def _energy(share: float) -> float:
    if not 0 < share <= 1:
        raise StoreError(f"the energy must be above 0 and at most 1, not {share}")
    return share


def _times(text: str) -> float:
    found = _TIMES.fullmatch(text)
    times = float(found[1]) if found else 0.0
    if not 0 < times <= LARGEST_BUDGET:
        raise StoreError(
            f"the budget must be a number above 0 with an x behind it, such as 1.3x, not {text[:80]!r}"
        )
    return times
