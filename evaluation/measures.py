"""Statistics of counts: intervals of shares, calibration error, area under the curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Interval = tuple[float, float]

# The normal quantile of a two-sided 95 % interval.
Z_95 = 1.959963984540054


def wilson_interval(right: int, inputs: int) -> Interval:
    """The 95 % interval of a share of which `right` in `inputs` were seen (Wilson 1927).

    `(p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n)`; unlike the normal approximation it is not
    empty at 0 and 1.
    """
    share, spread = right / inputs, Z_95**2 / inputs
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / inputs + spread / (4 * inputs)) / (1 + spread)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def mean_interval(shares: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """The 95 % interval of the mean of independent shares, from theirs (MOVER, Zou and Donner 2008).

    `m - sqrt(sum (p_t - l_t)²) / T` to `m + sqrt(sum (u_t - p_t)²) / T`: for the tasks that were measured,
    not for tasks that were not.
    """
    mean = sum(shares) / len(shares)
    below = math.sqrt(sum((p - low) ** 2 for p, (low, _) in zip(shares, intervals, strict=True)))
    above = math.sqrt(sum((high - p) ** 2 for p, (_, high) in zip(shares, intervals, strict=True)))
    return mean - below / len(shares), mean + above / len(shares)


def micro_f1(hits: int, given: int, wanted: int) -> float:
    """`2 hits / (given + wanted)` of all labels of all inputs together: 1 where none are given nor wanted.

    Of inputs that have, and are given, one label each it is the accuracy.
    """
    return 2 * hits / (given + wanted) if given + wanted else 1.0


@dataclass(frozen=True)
class ConfidenceBin:
    """The inputs whose confidence falls into one of equally wide bins."""

    inputs: int
    mean_confidence: float
    accuracy: float


def expected_calibration_error(bins: Sequence[ConfidenceBin]) -> float:
    """`sum over bins of n_b / n |accuracy_b - mean confidence_b|` (Guo et al. 2017)."""
    inputs = sum(part.inputs for part in bins)
    return sum(part.inputs / inputs * abs(part.accuracy - part.mean_confidence) for part in bins)


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """The chance that a random positive is above a random negative, ties counting half (Mann and Whitney)."""
    values = np.concatenate([positives, negatives])
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # of ties, the mean
    above = ranks[: len(positives)].sum() - len(positives) * (len(positives) + 1) / 2
    return float(above / (len(positives) * len(negatives)))
