"""The constants that are best on some suites, each of which weighs the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace

from benchmarks.routing.record import Recorded, Suite
from benchmarks.routing.replay import SERVED, Constants, known, replay
from mass_serve.router import ModeName
from mass_serve.router.weights import Weights

# The ratios of other weights to that of cosines.
SHARES = (1.5, 2.0, 3.0, 4.0, 6.0)
SECOND_PASSES = (0.0, 0.5, 1.0, 2.0, 3.0)
CONFIDENCES = (0.0, 0.125, 0.25, 0.5)
SCALES = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0)  # the weight of cosines
LEADS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
DISTANCES = (0.32, 0.16, 0.08, 0.06, 0.04, 0.02)  # the cheapest first
MARGINS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
# What is cheaper is taken where it costs at most so much of the accuracy.
WORTH_A_PASS = 0.001

Parts = Sequence[tuple[Suite, Recorded]]


def normalised(parts: Parts, constants: Constants, mode: ModeName) -> float:
    """The share of the accuracy with the task named that is left without, averaged over suites."""
    return _mean(replay(*part, constants, mode).accuracy / known(part[1]) for part in parts)


def chosen_on(parts: Parts) -> Constants:
    """Chooses one constant after the other, by the accuracies that they are there for."""
    constants = _best(
        [_weighing(SERVED, share=ratio) for ratio in SHARES], lambda one: normalised(parts, one, "balanced")
    )
    constants = _best([_scaled(constants, scale) for scale in SCALES], lambda one: -_error(parts, one))
    widest = replace(constants, second_pass_margin=math.inf)
    weighed = _best(
        [
            _weighing(widest, second_pass=second_pass, confidence=confidence)
            for second_pass in SECOND_PASSES
            for confidence in CONFIDENCES
        ],
        lambda one: normalised(parts, one, "exact"),
    )
    weighed = _cheapest(
        [replace(weighed, second_pass_margin=margin) for margin in MARGINS],
        lambda one: normalised(parts, one, "exact"),
    )
    exits = _cheapest(
        [replace(weighed, early_exit_lead=lead) for lead in LEADS],
        lambda one: normalised(parts, one, "fast"),
    )
    return _cheapest(
        [replace(exits, farthest_resumed=distance) for distance in DISTANCES],
        lambda one: normalised(parts, one, "fast"),
    )


def _weighing(constants: Constants, **ratios: float) -> Constants:
    """Other weights, by their ratio to that of cosines."""
    cosine = constants.weights.cosine
    weights = {name: ratio * cosine for name, ratio in ratios.items()}
    return replace(constants, weights=replace(constants.weights, **weights))


def _scaled(constants: Constants, cosine: float) -> Constants:
    by = cosine / constants.weights.cosine
    scaled = {name: value * by for name, value in asdict(constants.weights).items()}
    return replace(constants, weights=Weights(**scaled))


def _error(parts: Parts, constants: Constants) -> float:
    return _mean(replay(*part, constants, "balanced").calibration_error for part in parts)


def _best(tried: Sequence[Constants], worth: Callable[[Constants], float]) -> Constants:
    """The first of the best."""
    return max(tried, key=worth)


def _cheapest(tried: Sequence[Constants], worth: Callable[[Constants], float]) -> Constants:
    """The first, cheapest first, that is hardly worse than the best."""
    worths = [worth(one) for one in tried]
    return next(one for one, own in zip(tried, worths, strict=True) if own >= max(worths) - WORTH_A_PASS)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
