"""The metrics of answers that are kept for inputs that come again."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class AnswerCacheMetrics:
    """Registers these metrics and counts them; `Metrics` is one of these."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._hits = Counter(
            "mass_answer_cache_hits",
            "Answers that were known already, and took no place in a batch.",
            registry=registry,
        )
        self._misses = Counter(
            "mass_answer_cache_misses",
            "Answers that may be kept and were not known.",
            registry=registry,
        )
        self._bytes = Gauge(
            "mass_answer_cache_bytes", "Memory that kept answers take, about.", registry=registry
        )

    def watch_answer_cache(self, nbytes: Callable[[], int]) -> None:
        """Lets `mass_answer_cache_bytes` be asked for at each scrape."""
        self._bytes.set_function(nbytes)

    def recalled(self, hits: int, misses: int) -> None:
        """Counts answers that were looked for."""
        self._hits.inc(hits)
        self._misses.inc(misses)
