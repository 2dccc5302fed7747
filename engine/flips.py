"""Whether two answers to one input are the same answer, and if not, what has flipped.

flip(active.classify([image])[0], following.classify([image])[0])  # None, or "label"
"""

from __future__ import annotations

from typing import Literal

from mass_serve.engine.answers import Classification, TokenClassification

# Of the later answer: that no task is believed, or that one is, another task, or another label of the same.
Flip = Literal["unrouted", "routed", "task", "label"]


def flip(before: Classification, after: Classification) -> Flip | None:
    """What is the first thing that `after` says otherwise than `before`; None where both say the same.

    Scores are not compared, and labels by their names: the same label may be another row of another head.
    """
    if before.unrouted != after.unrouted:
        return "unrouted" if after.unrouted else "routed"
    if before.task != after.task:
        return "task"
    return None if said_labels(before) == said_labels(after) else "label"


def said_labels(answer: Classification) -> tuple[str, ...]:
    """The labels of an answer: one, any number in alphabetical order, or one for each token of a text."""
    if isinstance(answer, TokenClassification):
        return tuple(answer.labels[row] for row in answer.logits.argmax(-1).tolist())
    return tuple(sorted(answer.given))
