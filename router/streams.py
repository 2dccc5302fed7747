"""The evidence of a stream, inputs that come one after the other and mostly are of one task: a camera's, say.

    stream, begins_anew = stream.followed_by([answer.evidence.own], half_life=8)
    prior = Prior(pools, {0: stream.remembered(half_life=8)})

An input's evidence counts half as much after every `half_life` inputs behind it, and is forgotten once it
counts LEAST_WEIGHT. One input that contradicts those before it is a part of its own (`router.parts`). With a
second one behind it the stream's task has changed, and what was before is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mass_serve.router.parts import split
from mass_serve.router.prior import Remembered

LEAST_WEIGHT = 1 / 16
CONTRADICTING = 2  # inputs in a row that a stream begins anew with


@dataclass(frozen=True)
class StreamEvidence:
    """The evidence of a stream's inputs, as far as it counts."""

    inputs: tuple[Tensor, ...] = ()  # [T] float32 each, the oldest first: log likelihoods, 0 of the best

    def remembered(self, half_life: float) -> Remembered | None:
        """What the stream's next inputs are judged with; None where there is nothing."""
        if not self.inputs:
            return None
        ages = torch.arange(len(self.inputs), 0, -1)  # the newest is one input old for the next
        return Remembered(torch.stack(self.inputs), 0.5 ** (ages / half_life))

    def followed_by(self, evidence: Sequence[Tensor], half_life: float) -> tuple[Self, bool]:
        """The stream with further inputs of evidence [T] each, and whether it begins anew with them.

        Evidence that is not finite is passed over, but for the -inf of tasks that were not measured: it
        becomes the least that the input has for any task.
        """
        known = [own for own in map(_finite, evidence) if own is not None]
        inputs = (*self.inputs, *known)[-most_inputs(half_life) :]
        run = _last_run(inputs, half_life) if known else 0
        if not CONTRADICTING <= run < len(inputs):
            return type(self)(inputs), False
        return type(self)(inputs[-run:]), True


def most_inputs(half_life: float) -> int:
    """How many inputs of a stream are remembered."""
    return max(CONTRADICTING, math.floor(-half_life * math.log2(LEAST_WEIGHT)))


def _finite(evidence: Tensor) -> Tensor | None:
    best, measured = evidence.max(), ~evidence.isneginf()
    if not bool(measured.any()) or not bool(best.isfinite()):  # the largest of NaN and others is NaN
        return None
    return torch.where(measured, evidence, evidence[measured].min()) - best


def _last_run(inputs: Sequence[Tensor], half_life: float) -> int:
    """How many of the last inputs are of one part of the stream, up to one of another part."""
    ages = torch.arange(len(inputs) - 1, -1, -1)
    parts, _ = split(torch.stack(list(inputs)), 0.5 ** (ages / half_life))
    others = (parts != parts[-1]).nonzero().flatten()
    return len(inputs) - 1 - int(others[-1]) if len(others) else len(inputs)
