"""Runs methods over the inputs, a batch in memory at a time; what was answered before is not asked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mass_serve.evaluation.answer_journal import AnswerJournal
from mass_serve.evaluation.data import EvaluationData
from mass_serve.evaluation.index import HALVES, Selection
from mass_serve.evaluation.methods import Method
from mass_serve.model_store.progress import Progress


@dataclass(frozen=True)
class Run:
    """One evaluation: its inputs, where answers go, and who is told how far it is."""

    data: EvaluationData
    journal: AnswerJournal
    progress: Progress

    def answer(self, method: Method, tasks: Sequence[str]) -> None:
        """Writes the answers of a method to all inputs of those tasks into the journal."""
        total = sum(self.data.count(task) for task in tasks)
        done = self.journal.answered(method.name, tasks)
        for task in tasks:
            for half in HALVES:
                selection = Selection(task, half, unanswered_by=method.name)
                for batch in self.data.batches(selection):
                    self.journal.add(method.name, batch, method.answer(batch))
                    done += len(batch.ids)
                    self.progress(method.name, done, total)
