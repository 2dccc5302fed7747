"""What tasks answer about one input each, as protocols that show all of it write it in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from mass_serve.engine import Aggregation, Alternative, Classification, TaskAnswer, TokenClassification
from mass_serve.server.serving.request_context import Answers


def _is_none(value: object) -> bool:
    return value is None


class LabelScore(BaseModel):
    """A label and its probability."""

    label: str
    score: float


# Of what a task gives any number of; absent of others.
_GIVEN: Any = Field(
    default=None,
    exclude_if=_is_none,
    description="of a task of any number of labels: those that reach their thresholds, likeliest first",
)


class Routing(BaseModel):
    """How the router decided: the tasks whose experts ran, and the figures for each of them."""

    expert_set: Sequence[str]
    coefficients: Mapping[str, float]
    residuals: Mapping[str, float] = Field(description="empty where they were not needed")
    familiarity: float | None = Field(
        description="0 to 1, how much the input is like those of the task; null where one task was named"
    )
    part: int | None = Field(
        default=None,
        exclude_if=_is_none,
        description=(
            "of inputs that were said to be of one task: those with one number are, by their evidence; 0 is"
            " the first one's, or that of the stream so far, and others contradict it"
        ),
    )


class AlternativeAnswer(BaseModel):
    """What another task says of an input that is near to both."""

    task: str
    task_revision: str
    label: str
    score: float = Field(description="the probability of the label, if the input is of this task")
    labels: list[LabelScore] | None = _GIVEN
    coefficient: float = Field(description="the probability of the task")


class EntityInText(BaseModel):
    """A run of a text's tokens and what it is."""

    label: str = Field(description="without B- and I-, but with aggregation none")
    score: float
    start: int = Field(description="its first character, counted in Unicode code points from 0")
    end: int = Field(description="the character behind its last")
    text: str


class TokenResult(BaseModel):
    """The answer of one task that classifies tokens, for one text."""

    task: str
    task_revision: str
    entities: list[EntityInText] = Field(description="in the text's order, without those labelled O")
    cut: int = Field(description="how many of the text's tokens were not read")


class ImageResult(BaseModel):
    """The answer of one task for one image or text."""

    task: str
    task_revision: str
    label: str = Field(description="the likeliest")
    score: float
    top: list[LabelScore]
    labels: list[LabelScore] | None = _GIVEN
    alternatives: list[AlternativeAnswer] = Field(
        description="of the other tasks that the input was tried with, likeliest first; mostly empty"
    )
    unrouted: bool = Field(description="the input is so little like those of any task that none is believed")
    cut: int | None = Field(
        default=None,
        exclude_if=_is_none,
        description="of a text: how many of its tokens were not read; absent of an image",
    )
    routing: Routing


def results(answers: Answers, top_k: int, aggregation: Aggregation) -> list[ImageResult | TokenResult]:
    """Returns the wire form of all answers to a request, with what was cut of each text."""
    found = [result(one, top_k, aggregation) for one in answers.classifications]
    of_each = len(found) // max(1, len(answers.cut))  # as many tasks answer for each text
    for place, cut in enumerate(answers.cut):
        for of_task in found[place * of_each : (place + 1) * of_each]:
            of_task.cut = cut
    return found


def result(answer: Classification, top_k: int, aggregation: Aggregation) -> ImageResult | TokenResult:
    """Returns one answer's wire form, of whichever kind its task is."""
    if isinstance(answer, TokenClassification):
        return token_result(answer, aggregation)
    return image_result(answer, top_k)


def token_result(answer: TokenClassification, aggregation: Aggregation) -> TokenResult:
    """Returns the wire form of the entities in a text."""
    found = [
        EntityInText(label=one.label, score=one.score, start=one.start, end=one.end, text=one.text)
        for one in answer.entities(aggregation)
    ]
    return TokenResult(task=answer.task, task_revision=answer.task_revision, entities=found, cut=0)


def image_result(answer: Classification, top_k: int) -> ImageResult:
    """Returns one answer's wire form: its `top_k` labels, or all if there are fewer, ties in label order."""
    # NumPy, which takes a tenth of the time for the few labels of most tasks.
    order = (-answer.logits.numpy()).argsort(kind="stable")[:top_k].tolist()
    top = _scored(answer, order)
    return ImageResult(
        task=answer.task,
        task_revision=answer.task_revision,
        label=top[0].label,
        score=top[0].score,
        top=top,
        labels=_given(answer),
        alternatives=[_alternative(one) for one in answer.alternatives],
        routing=Routing(
            expert_set=answer.expert_set,
            coefficients=answer.coefficients,
            residuals={task: answer.residuals[task] for task in answer.expert_set if answer.residuals},
            familiarity=answer.familiarity,
            part=answer.part,
        ),
        unrouted=answer.unrouted,
    )


def _scored(answer: TaskAnswer, rows: Sequence[int]) -> list[LabelScore]:
    scores = answer.probabilities.numpy()[list(rows)].tolist()
    return [LabelScore(label=answer.labels[i], score=score) for i, score in zip(rows, scores, strict=True)]


def _given(answer: TaskAnswer) -> list[LabelScore] | None:
    return _scored(answer, answer.labelling.given(answer.logits)) if answer.is_multi_label else None


def _alternative(answer: Alternative) -> AlternativeAnswer:
    best = int(answer.logits.argmax())
    return AlternativeAnswer(
        task=answer.task,
        task_revision=answer.task_revision,
        label=answer.labels[best],
        score=float(answer.probabilities[best]),
        labels=_given(answer),
        coefficient=answer.coefficient,
    )
