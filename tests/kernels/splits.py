"""Segment patterns as real traffic makes them; one generator feeds every kernel test."""

from __future__ import annotations

import numpy as np

PATTERNS = ("identical", "distinct", "uniform", "zipf", "skewed", "one_row", "empty_segment")


def offsets(pattern: str, samples: int, sets: int) -> tuple[int, ...]:
    """Segment offsets [S + 1] over `samples` samples that choose among `sets` expert sets."""
    rng = np.random.default_rng(len(pattern) + 31 * samples + sets)
    if pattern == "identical":
        counts = [samples]
    elif pattern == "distinct":
        counts = [1] * samples
    elif pattern == "uniform":
        counts = np.bincount(rng.integers(0, sets, samples), minlength=sets).tolist()
    elif pattern == "zipf":
        counts = np.bincount(np.minimum(rng.zipf(1.5, samples) - 1, sets - 1), minlength=sets).tolist()
    elif pattern == "skewed":
        counts = [samples - 1, 1]
    elif pattern == "one_row":
        counts = [1]
    else:
        counts = [samples // 2, 0, samples - samples // 2]
    return tuple(np.cumsum([0, *counts]).tolist())
