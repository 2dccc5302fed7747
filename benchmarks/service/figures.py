"""From what came back to figures."""

from __future__ import annotations

import statistics
from collections.abc import Collection

from benchmarks.service.generator import Journal

OK, TOO_MANY = 200, 429


def throughput(journal: Journal, warm_up: float) -> float:
    """Good answers a second after the warm-up: the slope of their count over time.

    Answers come in batches. Counting what falls into a window would be off by up to a batch at either end.
    """
    ended = sorted(
        end
        for end, status in zip(journal.ended, journal.statuses, strict=True)
        if status == OK and end > warm_up
    )
    return statistics.linear_regression(ended, range(len(ended))).slope


def latencies(
    journal: Journal, status: int = OK, targets: Collection[int] | None = None, after: float = 0.0
) -> list[float]:
    """Seconds, ascending, of the requests that were answered so."""
    rows = zip(journal.targets, journal.ended, journal.latencies, journal.statuses, strict=True)
    return sorted(
        seconds
        for target, ended, seconds, answered in rows
        if answered == status and ended > after and (targets is None or target in targets)
    )


def percentile(ascending: list[float], percent: float) -> float:
    """The smallest value that `percent` of the values do not exceed; 0 where there are none."""
    if not ascending:
        return 0.0
    return ascending[min(len(ascending) - 1, int(len(ascending) * percent / 100))]


def errors(journal: Journal) -> int:
    """Requests that were not answered well."""
    return sum(status != OK for status in journal.statuses)


def fairness(journal: Journal) -> float:
    """The slowest task's mean latency over the fastest one's. Target 0 is the router's, which does more."""
    means = [
        statistics.fmean(found)
        for target in sorted(set(journal.targets) - {0})
        if (found := latencies(journal, targets=[target]))
    ]
    return max(means) / min(means)
