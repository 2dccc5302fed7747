"""What a caller chooses among, by name."""

from __future__ import annotations

from typing import Literal

# One answer for an image, of the task that it is found to be of; or one of each task, without routing.
AnswerKind = Literal["best", "each"]
# How the tokens of a text become entities: see `entities`.
Aggregation = Literal["none", "simple", "first", "average", "max"]
