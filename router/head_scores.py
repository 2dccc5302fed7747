"""What a classification head says of an embedding, so that heads of different tasks can be compared.

Each embedding has three head scores. The largest cosine to one of the head's class vectors is a sign of the
task: where the class vectors lie as a whole counts in it. How clearly one class stands out is the same cosine
once that is taken out (see `HeadGeometry.scores`). The logarithm of the likeliest class's probability says
how sure the head is.

A label that an input has or not, whatever its others are, is two classes, whose vectors are w and -w: that it
is not there says as much of the task as that it is, and an input of such a task may have no label at all. So
there it is the size of a cosine that counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.kernels.heads import LEAST_COMMON, LEAST_SQUARE

# Less than this is not left to 1: nothing is so certain.
LEAST_REST = 1e-3


@dataclass(frozen=True)
class HeadGeometry:
    """How the class vectors w_c of a head, of unit length, lie to their mean m: what its scores need."""

    along: Tensor  # [C] float32: w_c . m
    lengths: Tensor  # [C] float32: |w_c - m|
    common: float  # |m|^2
    multi_label: bool = False  # an input may have any number of the labels

    @classmethod
    def of(cls, directions: Tensor, *, multi_label: bool = False) -> HeadGeometry:
        """Measures class vectors [C, P] of unit length."""
        mean = directions.mean(0)
        lengths = (directions - mean).square().sum(1).clamp_min(LEAST_SQUARE).sqrt()
        return cls(directions @ mean, lengths, float(mean.square().sum()), multi_label)

    def scores(self, cosines: Tensor) -> Tensor:
        """The head scores [n, 2] of cosines [n, C] of embeddings x to the class vectors.

        The largest cosine, and the largest cosine between `x - m (x . m) / (|m|^2 + LEAST_COMMON)` and the
        `w_c - m`. The mean over classes of an embedding's cosines is `x . m`, so that the cosines say it all.
        Where an input may have any number of labels, the largest is the one of the largest size.
        """
        along = cosines.mean(1, keepdim=True)
        taken = along / (self.common + LEAST_COMMON)
        left = 1 - 2 * taken * along + taken.square() * self.common
        products = cosines - along - taken * (self.along - self.common)
        centred = products / (left.clamp_min(LEAST_SQUARE).sqrt() * self.lengths)
        both = torch.stack([cosines, centred], dim=2)
        return (both.abs() if self.multi_label else both).amax(1)


def nearness(share: Tensor) -> Tensor:
    """-log(1 - share) of each element, for shares and cosines of up to 1."""
    return -(1 - share).clamp_min(LEAST_REST).log()
