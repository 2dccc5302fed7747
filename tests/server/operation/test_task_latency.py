"""Latency by task, in a bounded number of series."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from mass_serve.server.operation import task_latency
from mass_serve.server.operation.task_latency import OTHERS, TaskLatency
from tests.pictures import picture
from tests.server_processes import StartServer

COUNT = "mass_task_request_duration_seconds_count"


def counts(registry: CollectorRegistry) -> dict[str, float]:
    """How many requests each series has counted."""
    return {
        sample.labels["task"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == COUNT
    }


def test_tasks_beyond_the_bound_share_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_latency, "MOST_TASKS", 2)
    registry = CollectorRegistry()
    latency = TaskLatency(registry)
    latency.serve(["a", "b", "c", "d"])
    assert counts(registry) == {"a": 0, "b": 0}
    latency.observe(["a", "c", "a", "d"], 0.1)
    assert counts(registry) == {"a": 1, "b": 0, OTHERS: 1}


def test_a_task_that_is_served_no_more_leaves_no_series_behind() -> None:
    registry = CollectorRegistry()
    latency = TaskLatency(registry)
    latency.serve(["a", "b"])
    latency.observe(["a"], 0.1)
    latency.serve(["b", "c"])
    latency.observe(["a"], 0.1)  # by the engine before, which had admitted it
    assert counts(registry) == {"b": 0, "c": 0, OTHERS: 1}


def test_a_request_counts_once_for_each_task_that_answered_it(start_server: StartServer) -> None:
    server = start_server()
    server.wait_until_ready()
    for path in ("/v1/classify", "/models/signs", "/models/signs"):
        assert server.client.post(path, content=picture(1)).status_code == 200
    assert server.metric(COUNT + '{task="digits"}') == 1
    assert server.metric(COUNT + '{task="signs"}') == 2
