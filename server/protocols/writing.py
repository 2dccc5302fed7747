"""Answers in JSON, written on a thread where they are long: writing holds the event loop up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mass_serve.engine import Classification, TokenClassification
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.parsers import Parsers

# What is written on the event loop takes a millisecond at most.
MOST_LABELS_AT_ONCE = 1000
BYTES_A_LABEL = 100  # about
# A token is looked at, whether it becomes an entity or not.
LABELS_A_TOKEN = 10


async def written_answer(parsers: Parsers, turn: Turn, labels: int, write: Callable[[], str]) -> str:
    """Returns what `write` returns, an answer of so many labels."""
    # Not for a few: the way to a thread takes longer than that.
    if labels > MOST_LABELS_AT_ONCE:
        return await parsers.run(turn, labels * BYTES_A_LABEL, write)
    return write()


def num_labels(classifications: Sequence[Classification], top_k: int) -> int:
    """Returns how many labels an answer has, or how many take as long to write."""
    return sum(_num_labels(one, top_k) for one in classifications)


def _num_labels(answer: Classification, top_k: int) -> int:
    if isinstance(answer, TokenClassification):
        return LABELS_A_TOKEN * len(answer.logits)
    return len(answer.labels) if answer.is_multi_label else min(top_k, len(answer.labels))
