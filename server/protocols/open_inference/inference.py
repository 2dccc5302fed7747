"""From a well-formed request to its answer, whatever the transport."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mass_serve.engine import Classification, TokenClassification
from mass_serve.server.protocols.models import Model, find_model
from mass_serve.server.protocols.open_inference.infer_requests import InferRequest
from mass_serve.server.serving.request_context import Answers, RequestContext
from mass_serve.server.serving.service import Service

BYTES_AN_ANSWER = 1000  # about, for an image or a text, and for looking at a token

A = TypeVar("A")


async def answered(
    asked: InferRequest,
    name: str,
    version: str | None,
    service: Service,
    context: RequestContext,
    write: Callable[[InferRequest, Model, Answers], A],
) -> A:
    """Classifies the inputs of a request, and returns what `write` makes of the answers, on a thread.

    Raises NotFoundError where the model of that name is gone, and what `Service.classify` and `write` raise.
    """
    # The model may have a new revision since the request began; from here on it is one engine's.
    engine = service.engine
    model = find_model(engine, name, version)
    answers = await service.classify(
        asked.inputs, model.question, context, asked.urgency, engine, tells_entities=model.each_token
    )
    started = time.monotonic()
    answer = await service.parsers.run(
        context.caller.turn(),
        sum(map(_num_answers, answers.classifications)) * BYTES_AN_ANSWER,
        write,
        asked,
        model,
        answers,
    )
    context.stage_seconds["answer"] = time.monotonic() - started
    return answer


def _num_answers(answer: Classification) -> int:
    return len(answer.logits) if isinstance(answer, TokenClassification) else 1
