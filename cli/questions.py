"""What commands that answer inputs ask about each of them, as the settings have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mass_serve.cli.failing import fail
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.server.settings import Settings

if TYPE_CHECKING:
    from mass_serve.engine import Question
    from mass_serve.jobs import Asked


class HasTasks(Protocol):
    """What is known of a store without its weights."""

    @property
    def tasks(self) -> Mapping[str, TaskEntry]:
        """The tasks by name."""

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """The tasks of each group."""


def checked_question(store: HasTasks, question: Question) -> Question:
    """Returns a question with tasks in the place of names; ends the command where it cannot be asked."""
    try:
        known = question.among(store.tasks, store.groups)
        known.asks_of_tokens(store.tasks)
    except ValueError as error:
        fail(error)
    return known


def asked_of(question: Question, settings: Settings, *, embeds: bool = False, grouped: bool = False) -> Asked:
    """What is asked about every input, with the settings' batches, processes and limits."""
    from mass_serve.jobs import Asked, Limits

    return Asked(
        question,
        embeds,
        settings.max_batch_images,
        settings.max_batch_tokens,
        settings.decode_workers,
        Limits(settings.image_limits, settings.text_limits),
        grouped,
    )
