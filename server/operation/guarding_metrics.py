"""The metrics of what keeps one caller from starving the others: dropped connections, workers, keys, ages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mass_serve.sandbox.bounds import REASONS

DROP_REASONS = (
    "no_room",
    "handshake",
    "slow_headers",
    "slow_reader",
    "bad_request",
    "small_chunks",
    "no_descriptor",
)
AGES = ("decode", "parse", "batch", "queue", "load", "admin")
# The key of a caller who needed none and gave none.
NO_KEY = "none"


class GuardingMetrics:
    """Registers these metrics and counts them; `Metrics` is one of these."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._drops = Counter(
            "mass_connections_dropped",
            "Connections that the server closed or could not take, by reason.",
            ("reason",),
            registry=registry,
        )
        self._replaced = Counter(
            "mass_workers_replaced",
            "Sandboxed workers that were replaced, by the bound that they broke.",
            ("reason",),
            registry=registry,
        )
        self._key_requests = Counter(
            "mass_key_requests",
            "Requests by the name of the key that they came with.",
            ("key",),
            registry=registry,
        )
        self._rate_limited = Counter(
            "mass_key_rate_limited",
            "Requests refused because they were more than the rate of their key, by its name.",
            ("key",),
            registry=registry,
        )
        self._wrong_keys = Counter(
            "mass_wrong_keys", "Requests that came with a key that opens nothing.", registry=registry
        )
        self._held_bytes = Gauge(
            "mass_held_bytes", "Bytes of bodies that are held, by what they become.", registry=registry
        )
        self._held_capacity = Gauge(
            "mass_held_bytes_capacity", "Bytes of bodies that may be held.", registry=registry
        )
        self._age_limits = Gauge(
            "mass_oldest_limit_seconds",
            "Age at which work of a kind is given up, and its caller told so.",
            ("what",),
            registry=registry,
        )
        self._ages = _AgesCollector()
        registry.register(self._ages)
        for reason in DROP_REASONS:
            self._drops.labels(reason)
        for reason in REASONS:
            self._replaced.labels(reason)
        self._key_requests.labels(NO_KEY)

    def connection_dropped(self, reason: str) -> None:
        """Counts a connection that was closed, or could not be taken."""
        self._drops.labels(reason).inc()

    def worker_replaced(self, reason: str) -> None:
        """Counts a sandboxed worker that was replaced."""
        self._replaced.labels(reason).inc()

    def key_used(self, name: str | None) -> None:
        """Counts a request under its key's name; None is a caller without one."""
        self._key_requests.labels(NO_KEY if name is None else name).inc()

    def rate_limited(self, name: str | None) -> None:
        """Counts a request that was more than its key's rate."""
        self._rate_limited.labels(NO_KEY if name is None else name).inc()

    def wrong_key(self) -> None:
        """Counts a key that opens nothing."""
        self._wrong_keys.inc()

    def watch_held_bytes(self, held: Callable[[], float]) -> None:
        """Lets `mass_held_bytes` ask at each scrape."""
        self._held_bytes.set_function(held)

    def held_bytes_are_bounded(self, capacity: int) -> None:
        """Shows how many bytes may be held."""
        self._held_capacity.set(capacity)

    def ages_are_bounded(self, limits: Mapping[str, float]) -> None:
        """Shows the age at which each kind of work is given up."""
        for what in AGES:
            self._age_limits.labels(what).set(limits[what])

    def watch_ages(self, ages: Callable[[], Mapping[str, float]]) -> None:
        """Lets `mass_oldest_seconds` ask at each scrape: an age cannot go stale."""
        self._ages.ask = ages


class _AgesCollector(Collector):
    """Asks, at each scrape, for how long the oldest work of each kind has been waiting or running."""

    def __init__(self) -> None:
        self.ask: Callable[[], Mapping[str, float]] = dict

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "mass_oldest_seconds",
            "Age of the oldest piece of work of a kind; 0 where there is none.",
            labels=("what",),
        )
        ages = self.ask()
        for what in AGES:
            family.add_metric((what,), ages.get(what, 0.0))
        yield family
