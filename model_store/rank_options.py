"""From the options of a build to the rule by which its store chooses ranks."""

from __future__ import annotations

import re

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

_TIMES = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)x")


def rank_rule(options: BuildOptions, num_tasks: int) -> RankRule:
    """Returns the rule that the options name; without any that of the ratio 1 / T.

    The level of a budget is not known yet: it is 0, at which nothing is left out. Raises StoreError for two
    rules, and for values out of range.
    """
    given = [name for name in RANK_OPTIONS if getattr(options, name) is not None]
    if len(given) > 1:
        raise StoreError(f"{' and '.join(given)} choose the ranks in different ways: give one of them")
    if options.rank is not None:
        return _fixed_rank(options.rank)
    if options.energy is not None:
        return EnergyRule(share=_share("energy", options.energy))
    if options.budget is not None:
        return BudgetRule(times=_times(options.budget), level=0.0)
    ratio = 1 / num_tasks if options.compression_ratio is None else options.compression_ratio
    return RatioRule(compression_ratio=_share("compression ratio", ratio))


def _fixed_rank(rank: int) -> FixedRankRule:
    if not 1 <= rank <= LARGEST_SIZE:
        raise StoreError(f"the rank must be from 1 to {LARGEST_SIZE}, not {rank}")
    return FixedRankRule(rank=rank)


def _share(what: str, value: float) -> float:
    if not 0 < value <= 1:
        raise StoreError(f"the {what} must be above 0 and at most 1, not {value}")
    return value


def _times(text: str) -> float:
    found = _TIMES.fullmatch(text)
    times = float(found[1]) if found else 0.0
    if not 0 < times <= LARGEST_BUDGET:
        raise StoreError(
            f"the budget must be a number above 0 with an x behind it, such as 1.3x, not {text[:80]!r}"
        )
    return times
