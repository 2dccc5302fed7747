"""What a job writes of an input: rows of one form, whatever file they go into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mass_serve.engine import Aggregation, Classification, TokenClassification
from mass_serve.jobs.answering import Answered

# By column; what a row has nothing for is None.
Row: TypeAlias = dict[str, object]
SCORED = ("id", "task", "label", "score", "top", "familiarity", "unrouted")
LABELS, CUT, ENTITIES, EMBEDDING, PROBLEM = "labels", "cut", "entities", "embedding", "error"
PART = "part"


@dataclass(frozen=True)
class RowForm:
    """Which columns rows have, and how they are filled."""

    top: int  # labels
    texts: bool
    entities: bool
    embedding: bool
    multi_label: bool = False  # a task may give any number of labels
    aggregation: Aggregation = "simple"
    grouped: bool = False  # inputs of one group are judged together

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names, in their order."""
        wanted = (
            (PART, self.grouped),
            (LABELS, self.multi_label),
            (CUT, self.texts),
            (ENTITIES, self.entities),
            (EMBEDDING, self.embedding),
        )
        return (*SCORED, *(name for name, is_wanted in wanted if is_wanted), PROBLEM)

    def rows(self, answered: Answered) -> list[Row]:
        """The rows of an input: one an answer, or one that says why there is none."""
        empty: Row = dict.fromkeys(self.columns) | {"id": answered.input.id}
        if answered.problem:
            return [empty | {PROBLEM: answered.problem}]
        shared = dict(empty)
        if self.texts:
            shared[CUT] = answered.cut
        if answered.embedding is not None:
            shared[EMBEDDING] = answered.embedding.values.tolist()
        return [shared | self._of(answer) for answer in answered.answers]

    def _of(self, answer: Classification) -> Row:
        if isinstance(answer, TokenClassification):
            found = answer.entities(self.aggregation)
            entities = [
                {"label": one.label, "score": one.score, "start": one.start, "end": one.end, "text": one.text}
                for one in found
            ]
            return {"task": answer.task, ENTITIES: entities}
        order = answer.logits.argsort(descending=True, stable=True)[: self.top].tolist()
        top = _scored(answer, order)
        return {
            **self._given(answer),
            **({PART: answer.part} if self.grouped else {}),
            "task": answer.task,
            "label": top[0]["label"],
            "score": top[0]["score"],
            "top": top,
            "familiarity": answer.familiarity,
            "unrouted": answer.unrouted,
        }

    def _given(self, answer: Classification) -> Row:
        """All labels that reach their thresholds, of a task that gives any number of them."""
        if not answer.is_multi_label:
            return {}
        return {LABELS: _scored(answer, answer.labelling.given(answer.logits))}


def _scored(answer: Classification, rows: Sequence[int]) -> Sequence[dict[str, object]]:
    scores = answer.probabilities[list(rows)].tolist()
    return [{"label": answer.labels[row], "score": score} for row, score in zip(rows, scores, strict=True)]
