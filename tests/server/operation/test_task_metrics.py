"""What is counted for each task, in a bounded number of series."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.operation.task_metrics import OTHERS
from tests.pictures import picture
from tests.server.fakes import LABELS, FakeEngine, task_entry
from tests.server_processes import StartServer

COUNT = "mass_task_request_duration_seconds_count"


def of_tasks(metrics: Metrics, name: str) -> dict[str, float]:
    """The samples of a metric, by their tasks."""
    text = metrics.render().decode()
    return {
        sample.labels["task"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def serving(*tasks: str) -> FakeEngine:
    return FakeEngine(tasks={name: task_entry(name, LABELS) for name in tasks})


def test_tasks_beyond_the_bound_share_one_series() -> None:
    metrics = Metrics({}, max_task_labels=2)
    metrics.engine_loaded(serving("a", "b", "c", "d"), 1.0)
    for name in ("mass_images_total", "mass_routed_images_total", "mass_unrouted_images_total", COUNT):
        assert of_tasks(metrics, name) == {"a": 0, "b": 0, OTHERS: 0}
    metrics.tasks_answered(["a", "c", "a", "d"], 0.1)
    assert of_tasks(metrics, COUNT) == {"a": 1, "b": 0, OTHERS: 1}


def test_as_many_as_the_bound_have_no_others() -> None:
    metrics = Metrics({}, max_task_labels=2)
    metrics.engine_loaded(serving("a", "b"), 1.0)
    assert of_tasks(metrics, COUNT) == of_tasks(metrics, "mass_images_total") == {"a": 0, "b": 0}
    assert of_tasks(metrics, "mass_task_loaded") == {"a": 1, "b": 1}


def test_others_are_of_the_stores_revision_so_that_servers_can_be_compared() -> None:
    metrics = Metrics({}, max_task_labels=1)
    metrics.engine_loaded(replace(serving("a", "b", "c"), store_revision="s1"), 1.0)
    text = metrics.render().decode()
    assert f'mass_task_loaded{{revision="s1",task="{OTHERS}"}} 1.0' in text
    assert "\nmass_tasks 3.0\n" in text
    assert 'revision="r1",task="b"' not in text


def test_a_task_that_is_served_no_more_leaves_no_series_behind() -> None:
    metrics = Metrics({}, max_task_labels=2)
    metrics.engine_loaded(serving("a", "b"), 1.0)
    metrics.tasks_answered(["a"], 0.1)
    metrics.engine_loaded(serving("b", "c"), 1.0)
    metrics.tasks_answered(["a"], 0.1)  # by the engine before, which had admitted it
    assert of_tasks(metrics, COUNT) == {"b": 0, "c": 0, OTHERS: 1}
    assert of_tasks(metrics, "mass_images_total") == {"b": 0, "c": 0}


def test_a_request_counts_once_for_each_task_that_answered_it(start_server: StartServer) -> None:
    server = start_server()
    server.wait_until_ready()
    for path in ("/v1/classify", "/models/signs", "/models/signs"):
        assert server.client.post(path, content=picture(1)).status_code == 200
    assert server.metric(COUNT + '{task="digits"}') == 1
    assert server.metric(COUNT + '{task="signs"}') == 2
