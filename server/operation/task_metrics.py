"""The metrics that have a series for each task, for so many tasks as a monitoring system bears.

tasks = TaskMetrics(registry, most_named=100)
tasks.serve(engine)
tasks.took(["digits"], 0.02)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.metrics import MetricWrapperBase

from mass_serve.engine import Classification, ServingEngine

# A bucket is a series for each task: fewer than of other times, and about what a caller would notice.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
# What all tasks are called that have no series of their own; it is no task's name.
OTHERS = "(others)"


class TaskMetrics:
    """Registers these metrics and counts in them. Every method may be called from any thread.

    The first tasks in the store's order have series of their own, which are the same in every replica; all
    others share those of OTHERS. A task that is served no more leaves no series behind.
    """

    def __init__(self, registry: CollectorRegistry, most_named: int) -> None:
        self._most_named = most_named
        self._named: frozenset[str] = frozenset()
        self._images = Counter(
            "mass_images",
            "Images answered, by the task that won; one that each task answers counts for each.",
            ("task",),
            registry=registry,
        )
        self._routed = Counter(
            "mass_routed_images",
            "Images that the router gave to a task's experts.",
            ("task",),
            registry=registry,
        )
        self._unrouted = Counter(
            "mass_unrouted_images",
            "Images too little like any task's to be believed, by the task that won.",
            ("task",),
            registry=registry,
        )
        self._seconds = Histogram(
            "mass_task_request_duration_seconds",
            "From the end of a request's body to its result, once for each task that won an input of it.",
            ("task",),
            buckets=BUCKETS,
            registry=registry,
        )

        self._compared = Counter(
            "mass_shadow_compared",
            "Images that the next revision has answered, too, by the task that won.",
            ("task",),
            registry=registry,
        )
        self._flipped = Counter(
            "mass_shadow_flipped",
            "Images that the next revision answers otherwise, by the task that won.",
            ("task",),
            registry=registry,
        )

    @property
    def _all(self) -> tuple[MetricWrapperBase, ...]:
        of_shadow = self._compared, self._flipped
        return self._images, self._routed, self._unrouted, self._seconds, *of_shadow

    def serve(self, tasks: Collection[str]) -> None:
        """Opens the series of the tasks that are served from now on, and ends those of tasks that are not."""
        named = frozenset(islice(tasks, self._most_named))
        gone, self._named = self._named - named, named
        for metric in self._all:
            for task in gone:
                metric.remove(task)
            for task in named if len(named) == len(tasks) else (*named, OTHERS):
                metric.labels(task)

    def took(self, tasks: Iterable[str], seconds: float) -> None:
        """Counts the time of a request that these tasks have answered, once for each."""
        for label in {self._label(task) for task in tasks}:
            self._seconds.labels(label).observe(seconds)

    def answered(self, answer: Classification) -> None:
        """Counts an answer for the task that won, and for those whose experts ran where it was routed."""
        won = self._label(answer.task)
        self._images.labels(won).inc()
        if answer.unrouted:
            self._unrouted.labels(won).inc()
        if answer.familiarity is not None:
            for task in answer.expert_set:
                self._routed.labels(self._label(task)).inc()

    def compared(self, task: str, *, is_flipped: bool) -> None:
        """Counts an answer of the next revision beside this task's, which it may not share."""
        # In this order no scrape sees an answer compared that is yet to be counted as flipped.
        self._flipped.labels(self._label(task)).inc(is_flipped)
        self._compared.labels(self._label(task)).inc()

    def loaded(self, engine: ServingEngine | None) -> Iterator[Metric]:
        """Yields which revisions of tasks are served, and how many tasks."""
        tasks = {} if engine is None else engine.tasks
        family = GaugeMetricFamily(
            "mass_task_loaded",
            f"1 for every task that is served; of {OTHERS} the revision is the store's.",
            labels=("task", "revision"),
        )
        for task in islice(tasks.values(), self._most_named):
            family.add_metric((task.name, task.revision), 1)
        if engine is not None and len(tasks) > self._most_named:
            family.add_metric((OTHERS, engine.store_revision), 1)
        yield family
        yield GaugeMetricFamily("mass_tasks", "Tasks that are served.", value=len(tasks))

    def summed(self, name: str, documentation: str, values: Mapping[str, float]) -> Metric:
        """A gauge of a value for each task, which those of OTHERS have together."""
        sums: dict[str, float] = {}
        for task, value in values.items():
            sums[self._label(task)] = sums.get(self._label(task), 0.0) + value
        family = GaugeMetricFamily(name, documentation, labels=("task",))
        for label, value in sums.items():
            family.add_metric((label,), value)
        return family

    def _label(self, task: str) -> str:
        return task if task in self._named else OTHERS
