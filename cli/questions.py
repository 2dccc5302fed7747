"""What commands that answer inputs ask about each of them, as the settings have it."""

from __future__ import annotations

from mass_serve.cli.failing import fail
from mass_serve.engine import Engine, Question
from mass_serve.jobs import Asked, Limits
from mass_serve.server.settings import Settings


def check_question(engine: Engine, question: Question) -> bool:
    """Tells whether a question is about tokens; ends the command where the store cannot be asked it."""
    for name in question.tasks or ():
        if name not in engine.tasks:
            fail(f"there is no task {name!r}; the store has {', '.join(engine.tasks)}")
    try:
        return question.asks_of_tokens(engine.tasks)
    except ValueError as error:
        fail(error)


def asked_of(question: Question, settings: Settings, *, embeds: bool = False) -> Asked:
    """What is asked about every input, with the settings' batches, processes and limits."""
    return Asked(
        question,
        embeds,
        settings.max_batch_images,
        settings.max_batch_tokens,
        settings.decode_workers,
        Limits(settings.image_limits, settings.text_limits),
    )
