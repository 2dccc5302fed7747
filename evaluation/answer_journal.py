"""Every method's answer to every input, in a database: counted there, and read again after a killed run."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mass_serve.evaluation.data import InputBatch
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs import Target
from mass_serve.evaluation.measures import ConfidenceBin
from mass_serve.evaluation.methods import Answer
from mass_serve.jobs.journal import JournalError, claim

CONFIDENCE_BINS = 15

COUNTS = """
SELECT COUNT(*), SUM(right), SUM(routed_to = task), SUM(survived), SUM(set_size), SUM(passes),
    SUM(right_of_two), SUM(hits), SUM(given), SUM(wanted)
FROM answers JOIN inputs ON id = input WHERE method = ? AND task = ?
"""
BINS = """
SELECT COUNT(*), AVG({confidence}), AVG({right})
FROM answers JOIN inputs ON id = input WHERE method = :method AND (:task IS NULL OR task = :task)
GROUP BY MIN(CAST({confidence} * :bins AS INTEGER), :bins - 1) ORDER BY 2
"""
# By confidence: the SQL condition that it is the confidence in.
CLAIMS = {"score": "right", "coefficient": "(routed_to = task)"}


@dataclass(frozen=True)
class Counts:
    """Counts and sums of a method's answers to one task's inputs; the last five of methods that route."""

    inputs: int
    right: int  # task and labels all right
    hits: int  # labels of the right task that are right
    given: int  # labels that were answered
    wanted: int  # labels that the inputs have
    router_right: int | None  # the largest coefficient is the right task's
    survived: int | None  # the right task is in the expert set
    set_sizes: int | None
    passes: float | None
    right_of_two: int | None  # task and labels all right, of the answer or of its first alternative


class AnswerJournal:
    """The tables of answers and searches in the database that holds the index of the inputs."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def claim(self, settings: dict[str, object]) -> None:
        """Notes what the answers depend on. Raises EvaluationDataError where others were noted before."""
        try:
            claim(self._database, settings)
        except JournalError as error:
            raise EvaluationDataError(f"the journal was {error}: delete it, or name another") from error

    def add(self, method: str, batch: InputBatch, answers: Sequence[Answer]) -> None:
        """Writes the answers to a batch, all of them or none."""
        rows = [
            _row(method, number, batch.task, target, answer)
            for number, target, answer in zip(batch.ids, batch.targets, answers, strict=True)
        ]
        with self._database:
            self._database.executemany(f"INSERT INTO answers VALUES ({', '.join(15 * '?')})", rows)

    def answered(self, method: str, tasks: Sequence[str]) -> int:
        """The number of inputs of those tasks that a method has answered."""
        return sum(self.counts(method, task).inputs for task in tasks)

    def counts(self, method: str, task: str) -> Counts:
        """Counts what a method did with one task's inputs."""
        found = self._database.execute(COUNTS, (method, task)).fetchone()
        inputs, right, *routed, hits, given, wanted = found
        return Counts(inputs, right or 0, hits or 0, given or 0, wanted or 0, *routed)

    def went_to(self, method: str, task: str, column: Literal["routed_to", "answered"]) -> Counter[str]:
        """Counts, by task, where one task's inputs were routed, or whose head answered them."""
        query = f"SELECT {column}, COUNT(*) FROM answers JOIN inputs ON id = input"
        rows = self._database.execute(f"{query} WHERE method = ? AND task = ? GROUP BY 1", (method, task))
        return Counter(dict(rows.fetchall()))

    def confidence_bins(
        self, method: str, confidence: Literal["score", "coefficient"], task: str | None = None
    ) -> list[ConfidenceBin]:
        """Sorts one task's inputs, or all, by a confidence into 15 equal bins; returns those not empty."""
        query = BINS.format(confidence=confidence, right=CLAIMS[confidence])
        values = {"method": method, "task": task, "bins": CONFIDENCE_BINS}
        rows = self._database.execute(query, values)
        return [ConfidenceBin(*row) for row in rows]

    def familiarities(self, method: str) -> list[float]:
        """The familiarity of every input that the method has routed, in no order."""
        query = "SELECT familiarity FROM answers WHERE method = ? AND familiarity IS NOT NULL"
        return [value for (value,) in self._database.execute(query, (method,))]

    def add_search(
        self, method: str, half: int, coefficient: float, task: str, right: int, inputs: int
    ) -> None:
        """Writes how a coefficient that is to be used for `half` did on inputs of the other half."""
        with self._database:
            row = (method, half, coefficient, task, right, inputs)
            self._database.execute("INSERT INTO searches VALUES (?, ?, ?, ?, ?, ?)", row)

    def search(self, method: str, half: int, coefficient: float, task: str) -> tuple[int, int] | None:
        """(right, inputs) of a coefficient that was tried before, or None."""
        found: tuple[int, int] | None = self._database.execute(
            "SELECT right, inputs FROM searches"
            " WHERE method = ? AND half = ? AND coefficient = ? AND task = ?",
            (method, half, coefficient, task),
        ).fetchone()
        return found


def _row(method: str, number: int, task: str, target: Target, answer: Answer) -> tuple[object, ...]:
    right = (answer.task, answer.labels) == (task, target)
    shared = (method, number, right, answer.score, answer.task)
    hits = len(set(answer.labels) & set(target)) if answer.task == task else 0
    counted = (hits, len(answer.labels), len(target))
    if answer.routing is None:
        return (*shared, *[None] * 7, *counted)
    routing = answer.routing
    survived = task in routing.expert_set
    right_of_two = right or answer.alternative == (task, target)
    own = (len(routing.expert_set), routing.passes, routing.familiarity, right_of_two)
    return (*shared, routing.task, routing.coefficient, survived, *own, *counted)
