"""Whether a request may ask the tasks that classify the tokens of texts."""

from __future__ import annotations

from mass_serve.engine import Question, ServingEngine
from mass_serve.server.errors import BadRequestError


def asks_of_tokens(question: Question, engine: ServingEngine, tells_entities: bool) -> bool:
    """Tells whether a question about known tasks is one about the tokens of texts.

    Raises BadRequestError where it is none, and where the caller cannot be told of entities.
    """
    try:
        asks = question.asks_of_tokens(engine.tasks)
    except ValueError as error:
        raise BadRequestError(str(error)) from error
    if asks and not tells_entities:
        raise BadRequestError(
            "This task classifies the tokens of a text, which cannot be answered here; POST JSON with 'texts'"
            " to /v1/classify."
        )
    return asks
