"""Merging coefficients, tuned on one half of the inputs and used on the other.

So no input measures its own tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mass_serve.evaluation.answer_journal import AnswerJournal
from mass_serve.evaluation.data import EvaluationData
from mass_serve.evaluation.index import HALVES, Selection
from mass_serve.evaluation.methods import Dense
from mass_serve.model_store.progress import Progress

# At most so many inputs of each task and half are searched on: few are enough to choose one number.
SEARCH_INPUTS = 64

# (coefficient, half in which it is to be used) -> the method with that coefficient
WithCoefficient = Callable[[float, int], Dense]


@dataclass(frozen=True)
class Searched:
    """The coefficient that each half of each task's inputs is answered with."""

    coefficients: Mapping[tuple[str, int], float]
    tried: tuple[float, ...]
    inputs: int  # searched on, of both halves of all tasks


class Search:
    """Tries coefficients and keeps the best. What was tried before is read from the journal."""

    def __init__(self, data: EvaluationData, journal: AnswerJournal, progress: Progress) -> None:
        self._data, self._journal, self._progress = data, journal, progress

    def common(self, name: str, tried: Sequence[float], method: WithCoefficient) -> Searched:
        """One coefficient for all tasks: the smallest of those with the best mean accuracy over tasks."""
        tables = {half: self._accuracies(name, half, tried, method) for half in HALVES}
        best: dict[tuple[str, int], float] = {}
        for half, table in tables.items():
            means = [sum(table[task][i] for task in self._data.tasks) for i in range(len(tried))]
            best |= {(task, half): tried[means.index(max(means))] for task in self._data.tasks}
        return self._searched(name, tried, best)

    def of_each_task(self, name: str, tried: Sequence[float], method: WithCoefficient) -> Searched:
        """A coefficient for each task on its own."""
        best = {}
        for half in HALVES:
            for task, shares in self._accuracies(name, half, tried, method).items():
                best[task, half] = tried[shares.index(max(shares))]
        return self._searched(name, tried, best)

    def _searched(self, name: str, tried: Sequence[float], best: Mapping[tuple[str, int], float]) -> Searched:
        found = [
            self._journal.search(name, half, tried[0], task) for half in HALVES for task in self._data.tasks
        ]
        return Searched(best, tuple(tried), sum(entry[1] for entry in found if entry is not None))

    def _accuracies(
        self, name: str, half: int, tried: Sequence[float], method: WithCoefficient
    ) -> dict[str, list[float]]:
        """The share of right answers of every coefficient on inputs of the other half, by task."""
        shares: dict[str, list[float]] = {task: [] for task in self._data.tasks}
        for place, coefficient in enumerate(tried):
            candidate = method(coefficient, half)
            for task in self._data.tasks:
                found = self._journal.search(name, half, coefficient, task)
                if found is None:
                    found = self._try(candidate, task, 1 - half)
                    self._journal.add_search(name, half, coefficient, task, *found)
                right, inputs = found
                shares[task].append(right / inputs if inputs else 0.0)
            self._progress(f"searching {name}", half * len(tried) + place + 1, len(HALVES) * len(tried))
        return shares

    def _try(self, method: Dense, task: str, half: int) -> tuple[int, int]:
        """Answers the first inputs of a half. Returns (right, inputs)."""
        right = inputs = 0
        selection = Selection(task, half, limit=SEARCH_INPUTS)
        for batch in self._data.batches(selection):
            answers = method.answer(batch)
            right += sum(one.labels == target for one, target in zip(answers, batch.targets, strict=True))
            inputs += len(answers)
        return right, inputs
