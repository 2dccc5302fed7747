"""The constants that are best on some suites, each of which weighs the same, as do the tasks of a suite.

Weights are taken from the middle of all that are as good as the best, within the standard error of the
difference: their optimum is flat, and which of them is the best is a matter of the inputs that were drawn.
What saves passes is taken where it costs next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean

from torch import Tensor

from benchmarks.routing.record import Recorded, Suite
from benchmarks.routing.replay import SERVED, Constants, known, replay
from mass_serve.router import ModeName
from mass_serve.router.weights import Weights

# The ratios of other weights to that of cosines.
SHARES = (1.5, 2.0, 3.0, 4.0, 6.0)
SECOND_PASSES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
CONFIDENCES = (0.0, 0.125, 0.25, 0.5, 1.0)
SCALES = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0)  # the weight of cosines
# The cheapest first, of all three.
MARGINS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
LEADS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
DISTANCES = (0.32, 0.16, 0.08, 0.06, 0.04, 0.02)
# What is cheaper is taken where it costs at most so much of the accuracy.
WORTH_A_PASS = 0.001

Parts = Sequence[tuple[Suite, Recorded]]
Grid = Mapping[tuple[int, ...], Constants]  # by place


@dataclass(frozen=True)
class Worths:
    """What some constants are worth on every input of every suite; more is better."""

    of_suites: Sequence[Sequence[Tensor]]  # of each suite, the inputs' [n] float32 of each task

    @property
    def mean(self) -> float:
        """The mean over suites of the means over their tasks."""
        return fmean(fmean(float(own.mean()) for own in tasks) for tasks in self.of_suites)

    def standard_error(self, other: Worths) -> float:
        """The standard error of the difference of both means, the inputs being the same."""
        variances = [
            fmean(float((own - its).var()) / len(own) for own, its in zip(*pair, strict=True)) / len(pair[0])
            for pair in zip(self.of_suites, other.of_suites, strict=True)
        ]
        return math.sqrt(fmean(variances) / len(variances))


def chosen_on(parts: Parts) -> Constants:
    """Chooses one constant after the other, by the accuracies that they are there for."""

    def kept(mode: ModeName) -> Callable[[Constants], Worths]:
        return lambda constants: _kept(parts, constants, mode)

    shares: Grid = {(place,): _weighing(SERVED, share=ratio) for place, ratio in enumerate(SHARES)}
    constants = middle(shares, kept("balanced"))
    scales: Grid = {(place,): _scaled(constants, scale) for place, scale in enumerate(SCALES)}
    constants = replace(middle(scales, lambda one: _certainty(parts, one)), second_pass_margin=math.inf)
    weights: Grid = {
        (row, column): _weighing(constants, second_pass=second_pass, confidence=confidence)
        for row, second_pass in enumerate(SECOND_PASSES)
        for column, confidence in enumerate(CONFIDENCES)
    }
    constants = middle(weights, kept("exact"))
    margins = [replace(constants, second_pass_margin=margin) for margin in MARGINS]
    # By whether the task is right alone: no second pass resumes yet.
    constants = replace(cheapest(margins, kept("exact")), farthest_resumed=0.0)
    constants = cheapest([replace(constants, early_exit_lead=lead) for lead in LEADS], kept("fast"))
    return cheapest([replace(constants, farthest_resumed=one) for one in DISTANCES], kept("fast"))


def middle(tried: Grid, worth: Callable[[Constants], Worths]) -> Constants:
    """Of all that are as good as the best, the one whose place is next to the mean of their places.

    As good is what is behind by no more than the standard error of the difference.
    """
    worths = {place: worth(one) for place, one in tried.items()}
    best = max(worths.values(), key=lambda one: one.mean)
    good = [place for place, own in worths.items() if best.mean - own.mean <= best.standard_error(own)]
    centre = [fmean(along) for along in zip(*good, strict=True)]
    return tried[min(good, key=lambda place: math.dist(place, centre))]


def cheapest(tried: Sequence[Constants], worth: Callable[[Constants], Worths]) -> Constants:
    """The first, cheapest first, that is hardly worse than the best."""
    means = [worth(one).mean for one in tried]
    return next(one for one, own in zip(tried, means, strict=True) if own >= max(means) - WORTH_A_PASS)


def _kept(parts: Parts, constants: Constants, mode: ModeName) -> Worths:
    """Of the accuracy with the task named, what is left without."""
    shares = []
    for suite, record in parts:
        outcome = replay(suite, record, constants, mode)
        shares.append(outcome.by_task(outcome.right / known(record)))
    return Worths(shares)


def _certainty(parts: Parts, constants: Constants) -> Worths:
    """How near coefficients are to what they say."""
    outcomes = [replay(*part, constants, "balanced") for part in parts]
    return Worths([outcome.by_task(-outcome.squared_errors) for outcome in outcomes])


def _weighing(constants: Constants, **ratios: float) -> Constants:
    """Other weights, by their ratio to that of cosines."""
    cosine = constants.weights.cosine
    weights = {name: ratio * cosine for name, ratio in ratios.items()}
    return replace(constants, weights=replace(constants.weights, **weights))


def _scaled(constants: Constants, cosine: float) -> Constants:
    by = cosine / constants.weights.cosine
    scaled = {name: value * by for name, value in asdict(constants.weights).items()}
    return replace(constants, weights=Weights(**scaled))
