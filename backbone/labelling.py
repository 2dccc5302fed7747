"""Which of a head's labels an input has, and how likely each is: one of them, or any number of them.

MULTI_CLASS                      probabilities = softmax(logits); the likeliest label is the answer
MultiLabel(torch.tensor([0.5]))  probabilities = sigmoid(logits); every label is, from its threshold on
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Labelling(Protocol):
    """Says what logits tell of labels."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of every label, [..., C], of logits [..., C]."""

    def given(self, logits: Tensor) -> tuple[int, ...]:
        """The labels that are the answer of logits [C], the likeliest first, ties in label order."""

    def probability_of_given(self, logits: Tensor) -> float:
        """The probability that these and no others are the labels of an input with logits [C]."""

    def log_confidence(self, logits: Tensor) -> Tensor:
        """The logarithm of how sure a head is of its likeliest label, [n], of logits [n, C].

        It is the label's probability or, where an input may have any number of labels, that of the likelier
        of its being there and its not being there.
        """


@dataclass(frozen=True)
class MultiClass:
    """An input has one of the labels."""

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def given(self, logits: Tensor) -> tuple[int, ...]:
        return (int(logits.argmax()),)

    def probability_of_given(self, logits: Tensor) -> float:
        return float(logits.softmax(0).max())

    def log_confidence(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(1).amax(1)


@dataclass(frozen=True)
class MultiLabel:
    """An input has each of the labels or not, whatever the others are: all of them, or none, too."""

    thresholds: Tensor  # [C] float32, 0 to 1: the probability from which on an input has the label

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def given(self, logits: Tensor) -> tuple[int, ...]:
        reached = logits.sigmoid() >= self.thresholds
        order = logits.argsort(descending=True, stable=True)
        return tuple(order[reached[order]].tolist())

    def probability_of_given(self, logits: Tensor) -> float:
        probabilities = logits.sigmoid()
        return float(torch.where(probabilities >= self.thresholds, probabilities, 1 - probabilities).prod())

    def log_confidence(self, logits: Tensor) -> Tensor:
        return F.logsigmoid(logits.amax(1).abs())


MULTI_CLASS = MultiClass()
