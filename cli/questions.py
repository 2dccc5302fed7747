"""What commands that answer inputs ask about each of them, as the settings have it."""

from __future__ import annotations

from mass_serve.engine import Question
from mass_serve.jobs import Asked
from mass_serve.server.settings import Settings


def asked_of(question: Question, settings: Settings, *, embeds: bool = False) -> Asked:
    """What is asked about every input, with the settings' batches, processes and limits."""
    return Asked(
        question,
        embeds,
        settings.max_batch_images,
        settings.max_batch_tokens,
        settings.decode_workers,
        settings.image_limits,
    )
