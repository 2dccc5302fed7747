"""Times of variants that take turns, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def medians(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median wall-clock seconds of each variant over `rounds` rounds, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_number in range(rounds + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if round_number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def minima(
    variants: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, float]:
    """The least processor seconds of each variant over `rounds` rounds, after one round to warm up or none.

    All threads of this process count: beside other work, what one thread computes takes the same seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_number in range(rounds + warm_up):
        for name, run in variants.items():
            start = time.process_time()
            run()
            if round_number >= warm_up:
                times[name].append(time.process_time() - start)
    return {name: min(values) for name, values in times.items()}
