"""The level of a budget: which triplets of all tasks together are worth their bytes.

A triplet of a matrix of task t is worth `s^2 / (distance_t^2 bytes)`: what leaving it out would lose of the
task's change, for every byte that it saves (the distance is `||delta_t||` over what all tasks share). They
are kept from the best one on until the budget is spent. Only singular values are computed for it, and one
matrix of one task is in memory at a time on each thread. When a task is added, the level rises by what is
stored of the others, which is all that was above the level before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mass_serve.merging.formats.ranks import level_within, rank_above
from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.experts import ExpertLayout, ReadChange, ReadParameter
from mass_serve.model_store.format.file_names import PRETRAINED_FILE
from mass_serve.model_store.format.rank_choice import energies_of_change
from mass_serve.model_store.format.rank_rules import BudgetRule, RatioRule
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.store import Store

SPECTRA = "measuring spectra"
# What a task changed, and its distance from the base.
TaskMove = tuple[ReadChange, float]
# Of a matrix of a task: the squares of its singular values over that of the distance, and a triplet's bytes.
Spectrum = tuple[Tensor, int]


def level_of_budget(
    layout: ExpertLayout,
    budget: float,
    pretrained: ReadParameter,
    changes: Sequence[TaskMove],
    progress: Progress,
) -> float:
    """Returns the level at which the blocks of all tasks take at most `budget` bytes."""
    return _level(_measured_spectra(layout, pretrained, changes, progress), budget)


def rule_within_budget(
    store: Store,
    rule: RatioRule | BudgetRule,
    tasks: Sequence[TaskEntry],
    added: TaskMove | None = None,
    slack: float = 1.0,
    progress: Progress = silent,
) -> RatioRule | BudgetRule:
    """Returns the rule by which these tasks of a store and one that is added are within its budget.

    It is the rule as it is while they take at most `slack` times that.
    """
    if isinstance(rule, RatioRule):
        return rule.for_tasks(len(tasks) + (added is not None), slack)
    with store.encoder_file(PRETRAINED_FILE) as pretrained:
        budget = rule.times * sum(spec.nbytes for spec in pretrained.specs.values())
        spectra = [spectrum for task in tasks for spectrum in _stored_spectra(store, task)]
        if added is not None:
            spectra += _measured_spectra(store.layout, pretrained.read, [added], progress)
    taken = sum(cost * rank_above(energies, cost, rule.level) for energies, cost in spectra)
    if taken <= slack * budget:
        return rule
    return rule.model_copy(update={"level": _level(spectra, budget)})


def _level(spectra: Sequence[Spectrum], budget: float) -> float:
    costs = [torch.full_like(energies, cost) for energies, cost in spectra]
    return level_within(torch.cat([energies for energies, _ in spectra]), torch.cat(costs), budget)


def _measured_spectra(
    layout: ExpertLayout, pretrained: ReadParameter, changes: Sequence[TaskMove], progress: Progress
) -> list[Spectrum]:
    """The spectra of whole changes."""
    costs = layout.triplet_bytes

    def of_parameter(name: str) -> list[Spectrum]:
        base = pretrained(name)
        return [
            (energies_of_change(change(name, base)) / _square(distance), costs[name])
            for change, distance in changes
        ]

    progress(SPECTRA, 0, len(costs))
    spectra = []
    for done, found in enumerate(side_by_side(of_parameter, costs), 1):
        spectra += found
        progress(SPECTRA, done, len(costs))
    return spectra


def _stored_spectra(store: Store, task: TaskEntry) -> list[Spectrum]:
    """The spectra of what a store keeps of a task's change."""
    vectors, square = store.load_experts(task.name).singular_vectors, _square(task.distance)
    return [
        (vectors[name].s.double().square() / square, cost)
        for name, cost in store.layout_of(task).triplet_bytes.items()
    ]


def _square(distance: float | None) -> float:
    """The square of a distance; at distance 0 there is no energy to divide."""
    return (distance or 1.0) ** 2


def refuse_small_budget(layout: ExpertLayout, budget: float) -> None:
    """Raises StoreError for a budget, in bytes, that not every matrix has a triplet within."""
    least = max(layout.triplet_bytes.values())
    if budget < least:
        raise StoreError(
            f"the budget is {int(budget):,} bytes, and one singular vector of the largest matrix takes"
            f" {least:,}: give a larger one"
        )
