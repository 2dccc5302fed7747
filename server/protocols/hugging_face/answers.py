"""From classifications to lists of labels."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter
from torch import Tensor

from mass_serve.engine import Classification
from mass_serve.server.protocols.hugging_face.messages import HuggingFaceLabel, ScoreFunction
from mass_serve.server.protocols.hugging_face.text_requests import TextRequest
from mass_serve.server.serving.request_context import Answers

TextAnswer = list[HuggingFaceLabel] | list[list[HuggingFaceLabel]]
_TEXT_ANSWER: TypeAdapter[TextAnswer] = TypeAdapter(TextAnswer)


def labels(
    answer: Classification, top_k: int, function: ScoreFunction | None, cut: int | None = None
) -> list[HuggingFaceLabel]:
    """Returns the `top_k` labels of the winning task, ties in label order."""
    order = answer.logits.argsort(descending=True, stable=True)[:top_k].tolist()
    return [
        HuggingFaceLabel(
            label=answer.labels[i],
            score=score,
            task=answer.task,
            task_revision=answer.task_revision,
            unrouted=answer.unrouted,
            cut=cut,
        )
        for i, score in zip(order, _scores(answer, function)[order].tolist(), strict=True)
    ]


def text_answer(asked: TextRequest, answers: Answers) -> str:
    """Returns the answer about texts in JSON."""
    of_each = [
        labels(answer, asked.top_k, asked.function, cut)
        for answer, cut in zip(answers.classifications, answers.cut, strict=True)
    ]
    return _TEXT_ANSWER.dump_json(of_each if asked.is_nested else of_each[0]).decode()


def num_labels(classifications: Sequence[Classification], top_k: int) -> int:
    """Returns how many labels an answer has."""
    return sum(min(top_k, len(one.labels)) for one in classifications)


def _scores(answer: Classification, function: ScoreFunction | None) -> Tensor:
    """Returns a score for every label; of a single one the softmax would always be 1."""
    if function is None:
        function = "softmax" if len(answer.labels) > 1 else "sigmoid"
    if function == "none":
        return answer.logits
    return answer.probabilities if function == "softmax" else answer.logits.sigmoid()
