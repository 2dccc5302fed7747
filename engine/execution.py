"""In which form an expert set runs: shared low-rank blocks and a core, or merged weights of its own."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from mass_serve.backbone.architecture import weight_of
from mass_serve.engine.set_cache import LOW_RANK, MATERIALISED, SetCache, SetKey

if TYPE_CHECKING:
    from mass_serve.backbone import ExpertBank
    from mass_serve.engine.second_passes import FormChooser


class Execution(StrEnum):
    """The three settings of `execution`: every set in one form, or each in the form that its use pays for."""

    LOW_RANK = LOW_RANK
    MATERIALISED = MATERIALISED
    ADAPTIVE = "adaptive"


# How much longer a multiply-accumulate of merging takes than one of low-rank execution, for a set of one
# task and of several: `python -m benchmarks.cost_model STORE` on two CPU cores, STORE being ViT-B/32 with 8
# tasks of random weights, as `benchmarks.engine` builds it. Not measured on a GPU.
BUYING_OVER_RENTING = (2.1, 2.6)


class AdaptiveExecution:
    """Rent or buy: run a set low-rank until that has cost as much as merging its weights would have.

    Costs are multiply-accumulates beyond the base product. Renting costs a token, for a set of summed
    rank K, `K (d_in + d_out)` in every linear, and `2 K^2` more where several of its tasks change that
    linear. Buying costs `d_out K^2 + d_out K d_in` in every linear, once, weighed by BUYING_OVER_RENTING, and
    nothing after. Whatever requests come, this spends at most twice what the best choice in hindsight would
    have (the ski-rental bound). A set that is dropped from the cache has to earn its purchase again.

    Which form a sample runs in depends on the traffic before it, so its bits do too.
    """

    def __init__(self, bank: ExpertBank, cache: SetCache) -> None:
        self.cache = cache
        self._bank = bank
        self._paid: Counter[tuple[int, ...]] = Counter()
        names = [weight_of(linear) for linear in bank.linears]
        self._linears = [(tuple(bank.forms[name].shape), bank.ranks[name]) for name in names]

    def key(self, expert_set: tuple[int, ...], tokens: int) -> SetKey:
        """The form in which samples of so many tokens run with this set now; counts what they cost."""
        merged = SetKey(expert_set, materialised=True)
        if merged in self.cache:
            return merged
        fits = self._bank.expert_set_nbytes(expert_set, materialised=True) <= self.cache.budget_bytes
        if fits and self._paid[expert_set] >= self.purchase_price(expert_set):
            del self._paid[expert_set]
            return merged
        self._paid[expert_set] += tokens * self.rent(expert_set)
        return SetKey(expert_set, materialised=False)

    def rent(self, expert_set: tuple[int, ...]) -> int:
        """Multiply-accumulates for one token of a set."""
        cost = 0
        for (d_out, d_in), ranks in self._linears:
            own = [ranks[task] for task in expert_set if ranks[task]]
            k = sum(own)
            cost += k * (d_in + d_out) + (2 * k * k if len(own) > 1 else 0)
        return cost

    def purchase_price(self, expert_set: tuple[int, ...]) -> float:
        """Returns what merging a set is worth, in multiply-accumulates of rent."""
        return BUYING_OVER_RENTING[len(expert_set) > 1] * self.merging(expert_set)

    def merging(self, expert_set: tuple[int, ...]) -> int:
        """Multiply-accumulates of merging a set."""
        summed = [(shape, sum(ranks[task] for task in expert_set)) for shape, ranks in self._linears]
        return sum(d_out * k * k + d_out * k * d_in for (d_out, d_in), k in summed)


def form_chooser(execution: Execution, bank: ExpertBank, cache: SetCache) -> FormChooser:
    """Builds what says in which form an expert set runs.

    Raises ValueError where sets are to be materialised and the cache has no room for one.
    """
    if execution is Execution.ADAPTIVE:
        return AdaptiveExecution(bank, cache).key
    materialised = execution is Execution.MATERIALISED
    # No set has more weights of its own than that of all tasks.
    needed = bank.expert_set_nbytes(range(bank.num_tasks), materialised=True)
    if materialised and needed > cache.budget_bytes:
        raise ValueError(
            f"materialised execution keeps {needed:,} bytes for one expert set, and set_cache_bytes is "
            f"{cache.budget_bytes:,}: raise it, or use low_rank or adaptive execution"
        )
    return lambda expert_set, _tokens: SetKey(expert_set, materialised)
