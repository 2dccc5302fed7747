"""10,000 requests of all kinds, most of them wrong: a real server stays right, small and quiet."""

from __future__ import annotations

import asyncio
import json
import resource
import time

import httpx
import psutil
import pytest

from tests.server.web.abuse import LABEL, PICTURE, Crowd, acts, idle_connections
from tests.server_processes import PATIENCE, RunningServer, StartServer

REQUESTS = 10_000
ROUNDS = 3  # the first warms the server up
CLIENTS = 24
IDLE_CONNECTIONS = 500
IDLE_SECONDS = 3.0
BESIDE_IDLE = 200

# Half of what a leak of 1 KB a request would come to after the warm-up.
LARGEST_GROWTH = 512 * REQUESTS * (ROUNDS - 1) // ROUNDS


def one_round(server: RunningServer, crowd: Crowd) -> None:
    """A third of the requests; the last of them beside idle connections."""
    script = acts(REQUESTS // ROUNDS)
    asyncio.run(crowd.perform(script[:-BESIDE_IDLE]))
    with idle_connections(server.port, IDLE_CONNECTIONS):
        assert LABEL in server.client.post("/v1/classify", content=PICTURE).content
        assert psutil.Process(server.process.pid).num_fds() > IDLE_CONNECTIONS
        asyncio.run(crowd.perform(script[-BESIDE_IDLE:]))
        # The clients hold on; the server lets them go.
        wait_for_descriptors(server, IDLE_CONNECTIONS // 4)


def wait_for_descriptors(server: RunningServer, count: int) -> None:
    """Until the server holds fewer than `count`, its own files included."""
    process = psutil.Process(server.process.pid)
    deadline = time.monotonic() + PATIENCE
    while process.num_fds() >= count:
        assert time.monotonic() < deadline, f"{process.num_fds()} descriptors stay open"
        time.sleep(0.05)


# Worker processes that are started when the first are busy stay: one for each of two lanes, two files each.
DESCRIPTORS_OF_LATER_WORKERS = 4


@pytest.fixture
def many_descriptors() -> None:
    """Room for the idle connections, here and in the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))


@pytest.mark.slow
@pytest.mark.usefixtures("many_descriptors")
def test_ten_thousand_requests_of_all_kinds_leave_no_trace(start_server: StartServer) -> None:
    server = start_server(
        max_body_bytes=200_000,
        max_pixels=1_000_000,
        max_images_per_request=8,
        client_timeout=IDLE_SECONDS,
        idle_timeout=IDLE_SECONDS,
    )
    server.wait_until_ready()
    process = psutil.Process(server.process.pid)
    crowd = Crowd(server.port, CLIENTS)
    descriptors = process.num_fds()
    resident = []
    for _ in range(ROUNDS):
        one_round(server, crowd)
        resident.append(process.memory_info().rss)
    assert not crowd.surprises
    # Not on the connection from the start, which has been idle for so long that the server may close it now.
    answer = httpx.post(server.client.base_url.join("v1/classify"), content=PICTURE, trust_env=False)
    assert LABEL in answer.content
    assert resident[-1] - resident[0] < LARGEST_GROWTH
    wait_for_descriptors(server, descriptors + 1 + DESCRIPTORS_OF_LATER_WORKERS)
    assert server.metric("mass_queue_depth") == 0
    assert server.metric("mass_requests_in_progress") == 0
    log = server.log()
    assert "Traceback" not in log
    assert {line["level"] for line in map(json.loads, log.splitlines()[1:])} <= {"info", "warning"}
