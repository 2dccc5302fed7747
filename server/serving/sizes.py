"""How much of the queue a request takes, and whether it may take that.

size = checked_size(question, inputs, engine, settings)  # before anything is decoded
"""

from __future__ import annotations

from collections.abc import Sequence

from mass_serve.engine import AnyQuery, AnyQuestion, ServingEngine
from mass_serve.server.errors import BadRequestError, NotFoundError, TooLargeError
from mass_serve.server.serving.preparing import tokenizer_of
from mass_serve.server.serving.request_context import Inputs, Texts
from mass_serve.server.serving.ticket import size_of
from mass_serve.server.settings import Settings


def checked_size(question: AnyQuestion, inputs: Inputs, engine: ServingEngine, settings: Settings) -> int:
    """Returns the places of all that is asked: one for an image, for a text one for each token it may have.

    An input that several tasks answer takes them for each. Raises NotFoundError, BadRequestError, and
    TooLargeError for texts that the queue will never have room for.
    """
    count, what = len(inputs), "texts" if isinstance(inputs, Texts) else "images"
    for name in question.tasks or ():
        if name not in engine.tasks:
            raise NotFoundError(f"There is no task {name[:80]!a}; GET /v1/tasks lists those there are.")
    if question.mode is not None and question.mode not in engine.modes:
        raise BadRequestError(
            f"This server searches in the mode {' or '.join(engine.modes)}, and not in {question.mode!r}."
        )
    answers = question.answers(count, engine.tasks)
    most = settings.max_images_per_request
    if question.answer == "each" and answers > most:
        raise BadRequestError(
            f"{count} {what} times {answers // count} tasks are {answers} answers, and a request may have"
            f" {most} (max_images_per_request, of images as of texts); send fewer {what}, or name fewer"
            " tasks."
        )
    if isinstance(inputs, Texts):
        tokens = sum(map(tokenizer_of(engine).guessed_tokens, inputs.texts))
        return _fitting_the_queue(tokens * question.answers(1, engine.tasks), settings)
    if question.same_task:
        _check_fits_a_batch(count, settings.max_batch_images, "images")
    return answers


def check_known_size(
    question: AnyQuestion, queries: Sequence[AnyQuery], inputs: Inputs, settings: Settings
) -> None:
    """Raises BadRequestError for texts that one batch must have and is too small for."""
    if question.same_task and isinstance(inputs, Texts):
        _check_fits_a_batch(size_of(queries), settings.max_batch_tokens, "tokens")


def _fitting_the_queue(tokens: int, settings: Settings) -> int:
    most = settings.queue_tokens
    if tokens > most:
        bound = "queue_tokens" if settings.front_ends == 1 else "this front end's part of queue_tokens"
        raise TooLargeError(
            f"The texts may have {tokens} tokens, each as often as tasks answer it, and the queue has room"
            f" for {most} ({bound}); send fewer at a time, or shorter ones."
        )
    return tokens


def _check_fits_a_batch(size: int, most: int, unit: str) -> None:
    if size > most:
        raise BadRequestError(
            f"With same_task all {unit} of a request go into one batch, which has {most} (max_batch_{unit}),"
            f" not {size}; send fewer at a time."
        )
