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
CUT, ENTITIES, EMBEDDING, PROBLEM = "cut", "entities", "embedding", "error"


@dataclass(frozen=True)
class RowForm:
    """Which columns rows have, and how they are filled."""

    top: int  # labels
    texts: bool
    entities: bool
    embedding: bool
    aggregation: Aggregation = "simple"

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names, in their order."""
        wanted = ((CUT, self.texts), (ENTITIES, self.entities), (EMBEDDING, self.embedding))
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
        top = _top(answer, self.top)
        return {
            "task": answer.task,
            "label": top[0]["label"],
            "score": top[0]["score"],
            "top": top,
            "familiarity": answer.familiarity,
            "unrouted": answer.unrouted,
        }


def _top(answer: Classification, count: int) -> Sequence[dict[str, object]]:
    """The likeliest labels with their probabilities, ties in label order."""
    order = answer.probabilities.argsort(descending=True, stable=True)[:count].tolist()
    scores = answer.probabilities[order].tolist()
    return [{"label": answer.labels[row], "score": score} for row, score in zip(order, scores, strict=True)]
