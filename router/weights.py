"""What each kind of evidence counts.

Chosen by `python -m benchmarks.routing` on five suites, which also measures what they are worth on suites
that they were not chosen on (docs/accuracy.md). So are the constants of `router.modes`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """The weights of `router.evidence`, of a size that has coefficients as often right as they say."""

    share: float  # of what energies say (`router.energies`)
    cosine: float  # of the nearness of the first pass's embedding to a class vector
    # Of how clearly a class stands out in a second pass, times how far heads differed in the first.
    second_pass: float
    confidence: float  # of the logarithm of the label's probability in a second pass


WEIGHTS = Weights(share=24.0, cosine=6.0, second_pass=24.0, confidence=1.5)
