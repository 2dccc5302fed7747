"""From classifications to lists of labels, or of entities."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import TypeAdapter
from torch import Tensor

from mass_serve.engine import Classification, Entity, TokenClassification
from mass_serve.server.protocols.hugging_face.candidates import candidate_labels
from mass_serve.server.protocols.hugging_face.messages import (
    HuggingFaceEntity,
    HuggingFaceLabel,
    HuggingFaceParameters,
    ScoreFunction,
)
from mass_serve.server.protocols.hugging_face.text_requests import TextRequest
from mass_serve.server.serving.request_context import Answers

Labels: TypeAlias = list[HuggingFaceLabel]
Entities: TypeAlias = list[HuggingFaceEntity]
TextAnswer: TypeAlias = Labels | list[Labels] | Entities | list[Entities]
_LABELS: TypeAdapter[Labels | list[Labels]] = TypeAdapter(Labels | list[Labels])
_ENTITIES: TypeAdapter[Entities | list[Entities]] = TypeAdapter(Entities | list[Entities])


def labels(
    answer: Classification, top_k: int, function: ScoreFunction | None, cut: int | None = None
) -> list[HuggingFaceLabel]:
    """Returns the `top_k` labels of the winning task, ties in label order."""
    order = answer.logits.argsort(descending=True, stable=True)[:top_k].tolist()
    given = set(answer.labelling.given(answer.logits))
    return [
        HuggingFaceLabel(
            label=answer.labels[i],
            score=score,
            task=answer.task,
            task_revision=answer.task_revision,
            given=i in given if answer.is_multi_label else None,
            unrouted=answer.unrouted,
            cut=cut,
        )
        for i, score in zip(order, _scores(answer, function)[order].tolist(), strict=True)
    ]


def image_answer(answer: Classification, top_k: int, parameters: HuggingFaceParameters) -> str:
    """Returns the answer about an image in JSON."""
    if parameters.candidate_labels is not None:
        return _LABELS.dump_json(candidate_labels(answer, parameters)).decode()
    return _LABELS.dump_json(labels(answer, top_k, parameters.function_to_apply)).decode()


def text_answer(asked: TextRequest, answers: Answers) -> str:
    """Returns the answer about texts in JSON: of one task that classifies tokens, its entities."""
    found = list(zip(answers.classifications, answers.cut, strict=True))
    of_tokens = [(one, cut) for one, cut in found if isinstance(one, TokenClassification)]
    if of_tokens:
        in_each = [entities(answer, asked, cut) for answer, cut in of_tokens]
        return _ENTITIES.dump_json(in_each if asked.is_list else in_each[0]).decode()
    if asked.parameters.candidate_labels is not None:
        of_each = [candidate_labels(answer, asked.parameters, cut) for answer, cut in found]
    else:
        of_each = [labels(answer, asked.top_k, asked.function, cut) for answer, cut in found]
    return _LABELS.dump_json(of_each if asked.is_nested else of_each[0]).decode()


def entities(answer: TokenClassification, asked: TextRequest, cut: int) -> list[HuggingFaceEntity]:
    """Returns the entities in a text, as the request has them aggregated."""
    ignored = asked.parameters.ignore_labels
    found = (
        answer.entities(asked.aggregation) if ignored is None else answer.entities(asked.aggregation, ignored)
    )
    aggregated = asked.aggregation != "none"
    return [_entity(one, answer, cut, aggregated=aggregated) for one in found]


def _entity(found: Entity, answer: TokenClassification, cut: int, *, aggregated: bool) -> HuggingFaceEntity:
    return HuggingFaceEntity(
        entity=None if aggregated else found.label,
        entity_group=found.label if aggregated else None,
        index=None if aggregated else found.tokens[0],
        score=found.score,
        word=found.text,
        start=found.start,
        end=found.end,
        task=answer.task,
        task_revision=answer.task_revision,
        cut=cut,
    )


def _scores(answer: Classification, function: ScoreFunction | None) -> Tensor:
    """Returns a score for every label; of a single one the softmax would always be 1."""
    if function is None and len(answer.labels) > 1:
        return answer.probabilities
    if function == "none":
        return answer.logits
    return answer.logits.softmax(0) if function == "softmax" else answer.logits.sigmoid()
