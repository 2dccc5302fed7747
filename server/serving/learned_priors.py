"""How often inputs of late were of each task, as the service's own traffic tells: priors of the next ones.

An input counts by its own evidence, without any prior, so that what is learned never confirms itself. Callers
that are answered among some tasks alone teach nothing: who asks so knows something of the input.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from mass_serve.engine import Classification, Priors, Question, ServingEngine

# Every task has as much of what was seen before anything was: a new task is found, and a rare one, too.
FIRST_COUNT = 1.0


class LearnedPriors:
    """Counts inputs by task; one counts half as much after `half_life` others. Any thread may ask."""

    def __init__(self, half_life: float) -> None:
        self._kept = 0.5 ** (1 / half_life)  # of all counts, when an input is added
        self._counts: dict[str, float] = {}
        self._lock = threading.Lock()

    def shares(self, tasks: Collection[str], unseen: float = 0.0) -> Mapping[str, float]:
        """The probability of each of these tasks, where others together have a count of `unseen`."""
        with self._lock:
            counts = {name: self._counts.get(name, 0.0) + FIRST_COUNT for name in tasks}
        total = sum(counts.values()) + unseen
        return {name: count / total for name, count in counts.items()}

    def asked(self, question: Question, engine: ServingEngine) -> Question:
        """The question with these priors, unless it has its own or searches for nothing."""
        if question.priors is not None or question.answer == "each":
            return question
        names = engine.tasks if question.tasks is None else question.tasks
        if len(names) < 2:
            return question
        # What is left is of a task that the next revision alone may have, which is asked silently, too.
        return replace(question, priors=Priors.of(self.shares(names, unseen=FIRST_COUNT)))

    def learn(self, question: Question, engine: ServingEngine, answers: Sequence[Classification]) -> None:
        """Counts the inputs of a request whose tasks were searched for among all."""
        if question.tasks is not None:
            return
        found = [answer.evidence.own.softmax(0) for answer in answers if answer.evidence is not None]
        for shares in found:
            if bool(shares.isfinite().all()):
                self._add(dict(zip(engine.tasks, shares.tolist(), strict=False)))

    def _add(self, shares: Mapping[str, float]) -> None:
        """Adds one input; tasks that are served no more are forgotten."""
        with self._lock:
            self._counts = {
                name: self._kept * self._counts.get(name, 0.0) + share for name, share in shares.items()
            }
