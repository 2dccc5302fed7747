"""The metrics of the store's next revision, as far as it answers silently; by task `TaskMetrics` has some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mass_serve.engine import Flip

ERRORS = ("load", "answer", "no_task")


class ShadowMetrics(Collector):
    """Registers these metrics and counts in them. Every method may be called from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._revision: str | None = None
        self._flips = Counter(
            "mass_shadow_flips",
            "Images that the next revision answers otherwise, by what is other first.",
            ("what",),
            registry=registry,
        )
        self._dropped = Counter(
            "mass_shadow_dropped",
            "Images chosen for the next revision for which its queue had no room.",
            registry=registry,
        )
        self._errors = Counter(
            "mass_shadow_errors",
            "Failures of the next revision: to be loaded, to answer, or to have a task that was named.",
            ("what",),
            registry=registry,
        )
        for what in get_args(Flip):
            self._flips.labels(what)
        for what in ERRORS:
            self._errors.labels(what)
        registry.register(self)

    def serves(self, revision: str | None) -> None:
        """Shows which revision answers silently from now on; None: none."""
        self._revision = revision

    def flipped(self, found: Flip) -> None:
        """Counts an answer that is another one."""
        self._flips.labels(found).inc()

    def dropped(self, inputs: int) -> None:
        """Counts inputs that are not compared."""
        self._dropped.inc(inputs)

    def failed(self, what: str) -> None:
        """Counts a failure."""
        self._errors.labels(what).inc()

    def collect(self) -> Iterator[Metric]:
        """Yields which revision answers silently."""
        family = GaugeMetricFamily(
            "mass_shadow_loaded", "1 for the next revision that answers silently.", labels=("revision",)
        )
        if (revision := self._revision) is not None:
            family.add_metric((revision,), 1)
        yield family
