"""The metrics of inputs that are judged together: splits, streams, and priors that traffic has taught."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mass_serve.server.operation.task_metrics import TaskMetrics


class GroupMetrics:
    """Registers these metrics and counts them; `Metrics` is one of these."""

    def __init__(self, registry: CollectorRegistry, tasks: TaskMetrics) -> None:
        self._splits = Counter(
            "mass_split_requests",
            "Requests with same_task, or of a stream, whose inputs contradict that they are of one task.",
            registry=registry,
        )
        self._streams = Gauge("mass_streams", "Streams whose evidence is remembered.", registry=registry)
        self._began_anew = Counter(
            "mass_streams_began_anew",
            "Times that a stream's inputs contradicted what was remembered of it, and it was forgotten.",
            registry=registry,
        )
        self._dropped = Counter(
            "mass_streams_dropped",
            "Streams that were forgotten because there were more than max_streams.",
            registry=registry,
        )
        self._priors = _LearnedPriors(tasks)
        registry.register(self._priors)

    def watch_streams(self, count: Callable[[], int]) -> None:
        """Lets `mass_streams` be asked for at each scrape."""
        self._streams.set_function(count)

    def watch_learned_priors(self, priors: Callable[[], Mapping[str, float]]) -> None:
        """Lets `mass_learned_prior` be asked for at each scrape."""
        self._priors.watch(priors)

    def inputs_split(self) -> None:
        """Counts a request whose inputs are not of one task, as it said."""
        self._splits.inc()

    def stream_began_anew(self) -> None:
        """Counts a stream that was forgotten for what came next in it."""
        self._began_anew.inc()

    def stream_dropped(self) -> None:
        """Counts a stream that was forgotten for others."""
        self._dropped.inc()


class _LearnedPriors(Collector):
    """Reads, at each scrape, how likely tasks are by the traffic so far."""

    def __init__(self, tasks: TaskMetrics) -> None:
        self._tasks = tasks
        self._priors: Callable[[], Mapping[str, float]] = dict

    def watch(self, priors: Callable[[], Mapping[str, float]]) -> None:
        self._priors = priors

    def collect(self) -> Iterator[Metric]:
        yield self._tasks.summed(
            "mass_learned_prior",
            "The probability of each task by the traffic so far; none where it is not learned.",
            self._priors(),
        )
