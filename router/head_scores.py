"""What a classification head says of an embedding, so that heads of different tasks can be compared.

Each embedding has three head scores: the largest cosine to one of the head's class vectors, and how clearly
that class stands out from the others, in two units (see `HeadGeometry.scores`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from mass_serve.router.selection import STD_EPSILON

# Less than this is not left to 1: nothing is so certain.
LEAST_REST = 1e-3
# Class vectors as near to each other as this have no room between them that a peak could be measured in.
LEAST_ROOM = 0.05


@dataclass(frozen=True)
class HeadGeometry:
    """How a head's class vectors lie to each other: what its scores are measured by."""

    room: float  # how far an embedding at a class vector is above the head's mean cosine, on average
    chance: float  # how far the largest of C normal numbers is expected above their mean, in deviations
    dimensions: int  # P

    @classmethod
    def of(cls, directions: Tensor) -> HeadGeometry:
        """Measures class vectors [C, P] of unit length. The chance is Blom's approximation (Blom 1958)."""
        classes, dimensions = directions.shape
        # The mean cosine of a class vector to all of them, averaged, is the squared length of their mean.
        room = 1 - float(directions.double().mean(0).square().sum())
        chance = NormalDist().inv_cdf((classes - 0.375) / (classes + 0.25))
        return cls(max(room, LEAST_ROOM), chance, dimensions)

    def scores(self, cosines: Tensor) -> Tensor:
        """The head scores [n, 3] of cosines [n, C]: each row's largest, its sharpness and its peak.

        Sharpness: by how many standard deviations the largest is above the mean of all. Peak: how far it is
        above that mean, of what the class vectors leave room for. Both less what the largest of C
        independent numbers comes to by chance, so that heads of few and of many classes can be compared.
        """
        largest = cosines.amax(1)
        above = largest - cosines.mean(1)
        sharpness = above / (cosines.std(1, correction=0) + STD_EPSILON) - self.chance
        # Of an embedding at random, cosines deviate from their mean by the root of room over dimensions.
        peak = above / self.room - self.chance / math.sqrt(self.room * self.dimensions)
        return torch.stack([largest, sharpness, peak], dim=1)


def nearness(share: Tensor) -> Tensor:
    """-log(1 - share) of each element, for shares and cosines of up to 1."""
    return -(1 - share).clamp_min(LEAST_REST).log()


def comparable_scores(head_scores: Tensor) -> Tensor:
    """Head scores [..., 3] with the cosine's nearness in place of the cosine."""
    return torch.cat([nearness(head_scores[..., :1]), head_scores[..., 1:]], dim=-1)
