"""Answers in JSON, written on a thread where they are long: writing holds the event loop up."""

from __future__ import annotations

from collections.abc import Callable

from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.parsers import Parsers

# What is written on the event loop takes a millisecond at most.
MOST_LABELS_AT_ONCE = 1000
BYTES_A_LABEL = 100  # about


async def written_answer(parsers: Parsers, turn: Turn, labels: int, write: Callable[[], str]) -> str:
    """Returns what `write` returns, an answer of so many labels."""
    # Not for a few: the way to a thread takes longer than that.
    if labels > MOST_LABELS_AT_ONCE:
        return await parsers.run(turn, labels * BYTES_A_LABEL, write)
    return write()
