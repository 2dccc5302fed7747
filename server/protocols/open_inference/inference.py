"""From a well-formed request to its answer, whatever the transport."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mass_serve.engine import Classification, EmbeddingQuestion, TokenClassification
from mass_serve.server.protocols.models import Model, find_model
from mass_serve.server.protocols.open_inference.answers import Found
from mass_serve.server.protocols.open_inference.infer_requests import InferRequest
from mass_serve.server.protocols.vectors import BYTES_A_VALUE
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service

BYTES_AN_ANSWER = 1000  # about, for an image or a text, and for looking at a token

A = TypeVar("A")


async def answered(
    asked: InferRequest,
    name: str,
    version: str | None,
    service: Service,
    context: RequestContext,
    write: Callable[[InferRequest, Model, Found], A],
) -> A:
    """Classifies or embeds the inputs of a request, and returns what `write` makes of that, on a thread.

    Who asks for both waits for one after the other, each of which counts. Raises NotFoundError where the
    model of that name is gone, and what `Service.classify`, `Service.embed` and `write` raise.
    """
    # The model may have a new revision since the request began; from here on it is one engine's.
    engine = service.engine
    model = find_model(engine, name, version)
    answers = embeddings = None
    if asked.classifies:
        answers = await service.classify(
            asked.inputs,
            model.question(asked.mode, asked.together),
            context,
            asked.urgency,
            engine,
            tells_entities=model.each_token,
            stream=asked.together.stream,
        )
    if asked.embeds:
        question = EmbeddingQuestion(model.task)
        embeddings = await service.embed(asked.inputs, question, context, asked.urgency, engine)
    found = Found(answers, embeddings)
    started = time.monotonic()
    answer = await service.parsers.run(context.caller.turn(), _nbytes(found), write, asked, model, found)
    context.stage_seconds["answer"] = time.monotonic() - started
    return answer


def _nbytes(found: Found) -> int:
    """Returns about how many bytes an answer takes in JSON, or takes as long to write as so many."""
    classifications = found.answers.classifications if found.answers else ()
    vectors = found.embeddings.vectors if found.embeddings else ()
    return BYTES_AN_ANSWER * sum(map(_num_answers, classifications)) + BYTES_A_VALUE * sum(map(len, vectors))


def _num_answers(answer: Classification) -> int:
    return len(answer.logits) if isinstance(answer, TokenClassification) else 1
