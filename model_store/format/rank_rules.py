"""The rule by which a store chooses ranks: how many singular triplets each matrix of each task keeps.

    "compression_ratio": 0.125                                       the same share of every matrix
    "compression_ratio": 0.125, "ratio_budget": 1                    1 / T of every matrix, T tasks now 8
    "rank_rule": {"kind": "rank", "rank": 16}                        the same number
    "rank_rule": {"kind": "energy", "share": 0.95}                   what keeps that share of its energy
    "rank_rule": {"kind": "budget", "times": 1.3, "level": 2e-7}     what is above a level in all of them

The first two follow from a matrix's shape. The others look at its change: at the energies, the squared
singular values (`merging.formats.ranks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mass_serve.merging.compression_ratio import rank_for
from mass_serve.model_store.format.field_types import Share, Size, StrictModel

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, int]
# Energies are at most those of a base of a trillion numbers, none of which is beyond 1e30.
LARGEST_LEVEL = 1e72
# A budget beyond keeps every triplet there is, of any store.
LARGEST_BUDGET = 1e6
# What the ratios of all tasks add up to.
RatioBudget = Annotated[float, Field(gt=0, le=LARGEST_BUDGET)]


class RatioRule(StrictModel):
    """`R = max(1, int(min(d_out, d_in) * compression_ratio))`, the rule of format version 1.

    With a `ratio_budget` N the ratio is N / T: when tasks are added, all are cut to a smaller one. Without,
    the ratio is that of every task, whatever their number.
    """

    compression_ratio: Share
    ratio_budget: RatioBudget | None = None

    @classmethod
    def of_budget(cls, ratio_budget: float, num_tasks: int) -> RatioRule:
        """Returns the rule whose ratio is `ratio_budget / num_tasks`, and at most 1."""
        return cls(compression_ratio=min(1.0, ratio_budget / num_tasks), ratio_budget=ratio_budget)

    def for_tasks(self, num_tasks: int, slack: float = 1.0) -> RatioRule:
        """Returns the rule for a store of T tasks: this one, unless its ratio is above `slack N / T`."""
        if self.ratio_budget is None:
            return self
        within = self.of_budget(self.ratio_budget, num_tasks)
        return within if self.compression_ratio > slack * within.compression_ratio else self

    def prescribed(self, shape: Shape) -> int:
        """Returns the same share of the full rank of every matrix of this shape, at least 1."""
        return rank_for(shape, self.compression_ratio)

    def __str__(self) -> str:
        budget = "" if self.ratio_budget is None else f" ({self.ratio_budget:g}/T)"
        return f"compression ratio {self.compression_ratio:.4g}{budget}"


class FixedRankRule(StrictModel):
    """`R = min(rank, d_out, d_in)`."""

    kind: Literal["rank"] = "rank"
    rank: Size

    def prescribed(self, shape: Shape) -> int:
        """Returns the rule's rank, or all that a smaller matrix of this shape has."""
        return min(self.rank, *shape)

    def __str__(self) -> str:
        return f"rank {self.rank}"


class EnergyRule(StrictModel):
    """R is the smallest rank with at least `share` of the sum of the energies."""

    kind: Literal["energy"] = "energy"
    share: Share

    def chosen(self, energies: Tensor, cost: int) -> int:  # noqa: ARG002
        """Returns the least rank that keeps the share of a matrix's energies; `cost` does not matter."""
        from mass_serve.merging.formats.ranks import rank_keeping

        return rank_keeping(energies, self.share)

    def __str__(self) -> str:
        return f"energy {self.share:.4g}"


class BudgetRule(StrictModel):
    """R is the number of triplets with `energy / (distance^2 bytes)` above `level`.

    The distance is the task's from its base: what counts is the share of its own change, for a task that
    moved little needs that little. The level is found when a store is built: the lowest at which the blocks
    of all tasks have at most `times` the bytes of the pretrained model. Later tasks are held to the same.
    """

    kind: Literal["budget"] = "budget"
    times: Annotated[float, Field(gt=0, le=LARGEST_BUDGET)]
    level: Annotated[float, Field(ge=0, le=LARGEST_LEVEL)]

    def of_task(self, distance: float) -> BudgetRule:
        """Returns the rule for a task at that distance, whose energies need not be divided any more."""
        return self.model_copy(update={"level": self.level * distance**2})

    def chosen(self, energies: Tensor, cost: int) -> int:
        """Returns how many triplets, of `cost` bytes each, have `energy / cost` above the level."""
        from mass_serve.merging.formats.ranks import rank_above

        return rank_above(energies, cost, self.level)

    def __str__(self) -> str:
        return f"budget {self.times:g}x"


RuleOfSizes = RatioRule | FixedRankRule
RuleOfChanges = EnergyRule | BudgetRule
RankRule = RuleOfSizes | RuleOfChanges
# Of version 2; what version 1 has is a key of its own, `compression_ratio`.
StoredRankRule = Annotated[FixedRankRule | EnergyRule | BudgetRule, Field(discriminator="kind")]


def rule_keys(rule: RankRule) -> dict[str, Any]:
    """Returns the keys of a manifest that say a rule; those of the other rules are None."""
    if isinstance(rule, RatioRule):
        ratio, budget = rule.compression_ratio, rule.ratio_budget
        return {"compression_ratio": ratio, "ratio_budget": budget, "rank_rule": None}
    return {"compression_ratio": None, "ratio_budget": None, "rank_rule": rule}
