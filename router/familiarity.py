"""How much an image is like those of the task that answers it: low for images that no task covers."""

from __future__ import annotations

import math


def familiarity(likeness: float, first_cosine: float, second_cosine: float, confidence: float) -> float:
    """The product of three shares, `likeness sqrt(first_cosine second_cosine) confidence`, 0 to 1.

    `likeness` is the share of the image's activations in the task's subspaces, times how typical they are
    where that is known. The cosines are those of the first and the second pass's embedding to the task's
    nearest class vector; negative ones count as 0, and without a first pass's the second stands for both.
    `confidence` is the probability of the label. Each is lower for images that no task covers.
    """
    along = math.sqrt(max(0.0, second_cosine) * max(0.0, first_cosine))
    return likeness * along * confidence
