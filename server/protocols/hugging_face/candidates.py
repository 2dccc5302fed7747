"""Zero-shot classification as far as a store has words for it: candidates that are labels of its tasks.

Nothing here makes an embedding of a label that no task was trained on: a store has no text tower. So an input
is asked of the tasks that have all candidates among their labels, and only these are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mass_serve.engine import Classification, Question, ServingEngine
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.hugging_face.messages import HuggingFaceLabel, HuggingFaceParameters

_UNFIT = {
    "hypothesis_template": "labels are compared as they are, and no text is made of them",
    "top_k": "all candidates are told",
    "function_to_apply": "'multi_label' chooses between their scores",
}


def refuse_without_candidates(parameters: HuggingFaceParameters) -> None:
    """Raises BadRequestError for what is said of candidates where there are none.

    A `multi_label` of false is what clients send who say nothing.
    """
    for name in ("multi_label", "hypothesis_template"):
        if getattr(parameters, name):
            raise BadRequestError(
                f"{name} is about candidate_labels, and there are none; send both, or neither."
            )


def question_of_candidates(
    parameters: HuggingFaceParameters, question: Question, engine: ServingEngine, most: int
) -> Question:
    """Returns the question about known tasks among those of them that know all candidates.

    Raises BadRequestError where none of them does, and for parameters that do not fit candidates.
    """
    candidates = parameters.candidate_labels or []
    for name, why in _UNFIT.items():
        if getattr(parameters, name) is not None:
            raise BadRequestError(f"{name} says nothing beside candidate_labels: {why}; leave it out.")
    if not 1 <= len(candidates) <= most:
        raise BadRequestError(f"candidate_labels must hold 1 to {most} labels.")
    tasks = [engine.tasks[name] for name in question.tasks or engine.tasks]
    wanted = set(candidates)
    knowing = tuple(task.name for task in tasks if not task.head.each_token and wanted.issubset(task.labels))
    if not knowing:
        raise BadRequestError(
            "candidate_labels: no task in question has all of these labels. This server knows those that its"
            " tasks were trained on, which GET /v1/tasks lists, and no others; name labels of one task, or"
            " leave them out for those of all."
        )
    return replace(question, tasks=knowing)


def candidate_labels(
    answer: Classification, parameters: HuggingFaceParameters, cut: int | None = None
) -> list[HuggingFaceLabel]:
    """Returns all candidates, the likeliest first: how likely each is among them.

    With `multi_label`, how likely the task finds each on its own. One that is named twice is one.
    """
    rows = {label: row for row, label in enumerate(answer.labels)}
    places = [rows[label] for label in dict.fromkeys(parameters.candidate_labels or ())]
    alone = parameters.multi_label
    scores = answer.probabilities[places] if alone else answer.logits[places].softmax(0)
    order: Sequence[int] = scores.argsort(descending=True, stable=True).tolist()
    return [
        HuggingFaceLabel(
            label=answer.labels[places[place]],
            score=float(scores[place]),
            task=answer.task,
            task_revision=answer.task_revision,
            unrouted=answer.unrouted,
            cut=cut,
        )
        for place in order
    ]
