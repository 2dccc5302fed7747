"""The figures of `benchmarks.service`: what the generator writes down, and what is made of it."""

from __future__ import annotations

import time

import pytest

from benchmarks.service import figures
from benchmarks.service.generator import FAILED, Journal, Plan
from benchmarks.service.processes import Load
from tests.pictures import picture
from tests.server_processes import PATIENCE, RunningServer, StartServer


def test_batches_do_not_distort_the_throughput() -> None:
    """32 answers at once every two seconds are 16 a second, wherever the window is cut."""
    ended = [2.0 * batch + 1e-4 * row for batch in range(1, 30) for row in range(32)]
    journal = Journal(ended=ended, statuses=[200] * len(ended))
    for warm_up in (0.0, 5.9, 6.1):
        assert figures.throughput(journal, warm_up) == pytest.approx(16, rel=0.01)


def test_only_good_answers_count_as_served() -> None:
    ended = [0.1 * n for n in range(100)]
    journal = Journal(ended=ended, statuses=[200, 429] * 50)
    assert figures.throughput(journal, 0.0) == pytest.approx(5)
    assert figures.errors(journal) == 50


def test_fairness_compares_named_tasks_and_leaves_the_router_out() -> None:
    journal = Journal(
        targets=[0, 1, 2] * 2, ended=[1.0] * 6, latencies=[9.0, 1.0, 2.0] * 2, statuses=[200] * 6
    )
    assert figures.fairness(journal) == pytest.approx(2)
    assert figures.latencies(journal, targets=[2]) == [2.0, 2.0]


def test_percentiles_of_few_and_none() -> None:
    values = [float(n) for n in range(1, 101)]
    assert figures.percentile(values, 50) == 51
    assert figures.percentile(values, 99) == 100
    assert figures.percentile([], 99) == 0


def test_a_closed_loop_keeps_as_many_requests_under_way_as_it_has_clients(server: RunningServer) -> None:
    journal = Load(Plan(server.port, [None, "signs"], seconds=0.5, clients=4)).journal()
    assert len(journal.statuses) > 8
    assert set(journal.statuses) == {200}
    assert set(journal.targets) == {0, 1}
    # Four at a time fill the time, no more and no less (starting and ending apart).
    assert sum(journal.latencies) == pytest.approx(4 * journal.wall_seconds, rel=0.2)


def test_an_open_loop_sends_at_its_rate_whatever_comes_back(server: RunningServer) -> None:
    journal = Load(Plan(server.port, ["nobody"], seconds=2.0, rate=50.0)).journal()
    assert set(journal.statuses) == {404}
    assert len(journal.statuses) == pytest.approx(100, rel=0.4)


def test_a_server_that_is_gone_is_a_failure_of_every_request(start_server: StartServer) -> None:
    server = start_server()
    server.wait_until_ready()
    server.process.kill()
    server.process.wait()
    statuses = Load(Plan(server.port, [None], seconds=0.2, clients=1)).journal().statuses
    assert set(statuses) == {FAILED}


def test_a_load_that_is_stopped_tells_what_came_back_until_then(server: RunningServer) -> None:
    server.client.post("/v1/classify", content=picture(1)).raise_for_status()
    load = Load(Plan(server.port, [None], seconds=3600.0, clients=1))
    answered = 'mass_requests_total{code="200",protocol="v1"}'
    before = server.metric(answered)
    deadline = time.monotonic() + PATIENCE
    while server.metric(answered) < before + 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    statuses = load.stop().statuses
    assert len(statuses) >= 3
    assert set(statuses) == {200}
