"""The time of requests by task, for so many tasks as a monitoring system bears.

latency = TaskLatency(registry)
latency.serve(engine.tasks)
latency.observe(["digits"], 0.02)
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from prometheus_client import CollectorRegistry, Histogram

# A bucket is a series for each task: fewer than of other times, and about what a caller would notice.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
# Tasks with a series of their own, in the store's order. All others share OTHERS, which is no task's name.
MOST_TASKS = 100
OTHERS = "(others)"


class TaskLatency:
    """Registers the histogram and counts in it. Every method may be called from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "mass_task_request_duration_seconds",
            "From the end of a request's body to its result, once for each task that won an input of it;"
            f" beyond {MOST_TASKS} tasks as {OTHERS}.",
            ("task",),
            buckets=BUCKETS,
            registry=registry,
        )
        self._named: frozenset[str] = frozenset()

    def serve(self, tasks: Iterable[str]) -> None:
        """Opens the series of the tasks that are served from now on, and ends those of tasks that are not."""
        named = frozenset(islice(tasks, MOST_TASKS))
        gone, self._named = self._named - named, named
        for task in gone:
            self._seconds.remove(task)
        for task in named:
            self._seconds.labels(task)

    def observe(self, tasks: Iterable[str], seconds: float) -> None:
        """Counts the time of a request that these tasks have answered, once for each."""
        named = self._named
        for label in {task if task in named else OTHERS for task in tasks}:
            self._seconds.labels(label).observe(seconds)
