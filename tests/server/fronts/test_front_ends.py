"""Real front ends before a real device process: the same answers, one revision, no orphan, nothing lost."""

from __future__ import annotations

import base64
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from mass_serve.model_store.revisions import remove_task
from tests.pictures import encode, picture
from tests.server.fakes import DIE, HANG, LARGE, NOT_FINITE, SLOW
from tests.server_processes import (
    PATIENCE,
    ROOT,
    RunningServer,
    demo_server,
    running,
    server_process,
    serving,
    wait_for,
)

PICTURE = encode(Image.linear_gradient("L").convert("RGB"))
ADMIN = {"Authorization": "Bearer admin"}
# So many new connections reach both of two front ends, but once in thirty thousand times.
CONNECTIONS = 16
# Of all requests on connections of their own.
ROUNDS = 4


def front_ends(server: RunningServer) -> list[psutil.Process]:
    """The processes that speak HTTP."""
    return [child for child in psutil.Process(server.process.pid).children() if is_front_end(child)]


def is_front_end(process: psutil.Process) -> bool:
    """Whether it is one, and still lives."""
    try:
        return any("fronts.front_end" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def ask(server: RunningServer, path: str = "/v1/classify", **given: Any) -> httpx.Response:
    """Asks on a connection of its own, which any front end may get."""
    method = "GET" if not given else "POST"
    # Certificates are of no use here, and take longer to read than a request.
    with httpx.Client(timeout=PATIENCE, trust_env=False, verify=False) as client:
        return client.request(method, f"http://127.0.0.1:{server.port}{path}", **given)


def samples(server: RunningServer, name: str, **labels: str) -> dict[str, float]:
    """The samples of a metric with these labels, by process."""
    families = text_string_to_metric_families(ask(server, "/metrics").text)
    return {
        one.labels["process"]: one.value
        for family in families
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    }


@contextmanager
def all_gone(server: RunningServer) -> Iterator[None]:
    """After the block no process of the server is left."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    yield
    _, alive = psutil.wait_procs(family, PATIENCE)
    assert alive == []


def test_every_front_end_answers_as_one_process_does() -> None:
    requests: list[dict[str, Any]] = [
        {"content": PICTURE},
        {"json": {"images": [{"b64": base64.b64encode(PICTURE).decode()}]}},
        {"files": [("images", ("one.png", PICTURE, "image/png"))]},
        {"content": PICTURE, "path": "/v1/classify?tasks=digits"},
        {"content": PICTURE, "path": "/v1/classify?tasks=digits,street&answer=each"},
    ]
    with demo_server() as alone:
        alone.wait_until_ready()
        expected = [ask(alone, **request).json()["results"] for request in requests]
    with demo_server(front_ends=2) as server:
        server.wait_until_ready()
        for _ in range(ROUNDS):
            for request, results in zip(requests, expected, strict=True):
                response = ask(server, **request)
                assert response.status_code == 200, response.text
                assert response.json()["results"] == results, "the same bits"
        counted = samples(server, "mass_requests_total", protocol="v1", code="200")
        assert counted.pop("device") == 0
        assert sum(counted.values()) == ROUNDS * len(requests)
        assert len(counted) == 2
        assert all(counted.values()), "both have answered"
        _tasks_and_metrics_are_of_all(server)
        with all_gone(server):
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE) == 0


def _tasks_and_metrics_are_of_all(server: RunningServer) -> None:
    assert len({ask(server, "/v1/tasks").text for _ in range(CONNECTIONS)}) == 1
    assert samples(server, "mass_ready") == {"device": 1, "front_end_1": 1, "front_end_2": 1}
    memory = samples(server, "mass_device_memory_bytes", kind="pretrained")
    assert list(memory) == ["device"], "the weights are there once"
    assert samples(server, "mass_task_load_duration_seconds_count") == {"device": 1}, "one load for all"


@pytest.fixture
def admin(tmp_path: Path) -> dict[str, Any]:
    """Settings that let the holder of a key load and unload."""
    keys = tmp_path / "keys"
    keys.write_text("admin\n")
    return {"front_ends": 2, "admin_keys_file": str(keys), "store_poll_seconds": 0}


def test_a_load_that_one_front_end_answers_is_in_force_in_all(store: Path, admin: dict[str, Any]) -> None:
    with serving(store, **admin) as server:
        server.wait_until_ready()
        names = [task["name"] for task in ask(server, "/v1/tasks").json()["tasks"]]
        statuses: list[int] = []
        stopping = threading.Event()

        def client() -> None:
            while not stopping.is_set():
                statuses.append(ask(server, content=PICTURE).status_code)

        clients = [threading.Thread(target=client) for _ in range(2)]
        for thread in clients:
            thread.start()
        for change, path in (("unload", names[0]), ("load", names[0]), ("unload", names[1])):
            response = ask(server, f"/v2/repository/models/{path}/{change}", json={}, headers=ADMIN)
            assert response.status_code == 200, response.text
            gone = 404 if change == "unload" else 200
            found = {ask(server, f"/v1/tasks/{path}").status_code for _ in range(CONNECTIONS)}
            assert found == {gone}, (change, path)
        remove_task(store, names[2])
        response = ask(server, "/v2/repository/models/auto/load", json={}, headers=ADMIN)
        assert response.status_code == 200, response.text
        served = {ask(server, "/v1/tasks").json()["store_revision"] for _ in range(CONNECTIONS)}
        assert len(served) == 1
        stopping.set()
        for thread in clients:
            thread.join()
        assert set(statuses) == {200}


def test_all_follow_the_store_and_say_what_is_wrong_with_it(store: Path) -> None:
    with serving(store, front_ends=2, store_poll_seconds=0.05) as server:
        server.wait_until_ready()
        gone = ask(server, "/v1/tasks").json()["tasks"][0]["name"]
        remove_task(store, gone)
        wait_for(lambda: {ask(server, f"/v1/tasks/{gone}").status_code for _ in range(CONNECTIONS)} == {404})
        manifest = store / "manifest.json"
        good = manifest.read_bytes()
        manifest.write_bytes(b"{}")
        wait_for(lambda: all("load_error" in ask(server, "/readyz").json() for _ in range(CONNECTIONS)))
        assert ask(server, content=PICTURE).status_code == 200
        manifest.write_bytes(good)
        wait_for(lambda: all("load_error" not in ask(server, "/readyz").json() for _ in range(CONNECTIONS)))


def test_a_front_end_that_dies_is_started_anew_and_the_others_serve_on() -> None:
    with running(0.0, {"front_ends": 2, "max_batch_images": 4}) as server:
        server.wait_until_ready()
        victim, other = front_ends(server)
        os.kill(victim.pid, signal.SIGKILL)
        # Some of these wait in its socket for the next one, and none is refused.
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            asked = [pool.submit(ask, server, content=picture(n)) for n in range(CONNECTIONS)]
            answers = [future.result().json()["results"][0]["label"] for future in asked]
        assert answers == [str(n) for n in range(CONNECTIONS)]
        wait_for(lambda: len(samples(server, "mass_ready")) == 3)
        pids = {one.pid for one in front_ends(server)}
        assert other.pid in pids
        assert victim.pid not in pids
        assert len(pids) == 2
        assert "started anew" in server.log()


def test_a_front_end_that_hangs_is_replaced_and_does_not_hold_the_end_up() -> None:
    with running(0.0, {"front_ends": 2, "drain_seconds": 0, "request_timeout": 2}) as server:
        server.wait_until_ready()
        victim, other = front_ends(server)
        victim.suspend()
        wait_for(lambda: not victim.is_running() and len(front_ends(server)) == 2)
        with all_gone(server):
            other.suspend()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE) == 1
        assert "a front end hangs" in server.log()


def test_sigterm_to_all_while_they_start_ends_the_service_well() -> None:
    with running(0.0, {"front_ends": 2, "drain_seconds": 0}) as server:
        wait_for(lambda: len(front_ends(server)) == 2)
        family = [psutil.Process(server.process.pid), *front_ends(server)]
        with all_gone(server):
            for process in family:
                process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE) == 0
        assert "has ended" not in server.log()


def test_no_file_of_the_working_directory_is_executed(tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('executed')")
    (tmp_path / "signal.py").write_text("raise SystemExit('executed')")
    # As the installed program starts, which has the folder of itself where `-m` has the working directory.
    command = [sys.executable, "-P", "-m", "mass_serve.cli", "serve"]
    with server_process(command, {"front_ends": 2}, {"PYTHONPATH": str(ROOT)}, tmp_path) as server:
        server.wait_until_ready()
        assert "executed" not in server.log()


def test_front_ends_end_with_the_process_of_the_device() -> None:
    with running(0.0, {"front_ends": 2}) as server:
        server.wait_until_ready()
        with all_gone(server):
            server.process.kill()


def is_refused(request: Callable[[], httpx.Response]) -> bool:
    """Whether it is told that the device is lost, or finds nobody, where it comes after the end."""
    try:
        return request().status_code == 503
    except httpx.TransportError:
        return True


def test_a_dead_device_ends_the_service() -> None:
    with running(0.0, {"front_ends": 2, "max_batch_images": 1}) as server:
        server.wait_until_ready()
        with all_gone(server):
            assert ask(server, content=picture(1, green=DIE)).status_code == 503
            assert all(is_refused(lambda: ask(server, content=picture(2))) for _ in range(CONNECTIONS))
            assert server.process.wait(PATIENCE) == 1


def test_a_hung_device_fails_all_at_once_and_ends_the_service() -> None:
    hangs = {"max_batch_images": 1, "max_batch_seconds": 1.0, "hang_timeout": 2.0}
    with running(0.0, {"front_ends": 2, **hangs}) as server:
        server.wait_until_ready()
        with all_gone(server), ThreadPoolExecutor(8) as pool:
            hung = pool.submit(ask, server, content=picture(1, green=HANG))
            wait_for(lambda: any(samples(server, "mass_oldest_seconds", what="batch").values()))
            waiting = [pool.submit(ask, server, content=picture(2)) for _ in range(6)]
            assert hung.result().status_code == 503
            assert all(is_refused(future.result) for future in waiting)
            assert server.process.wait(PATIENCE) == 1


def test_sigterm_under_load_loses_nothing_and_leaves_nobody() -> None:
    with running(0.0, {"front_ends": 2, "drain_seconds": PATIENCE, "log_level": "error"}) as server:
        server.wait_until_ready()
        statuses: list[int] = []
        stopping = threading.Event()

        def client() -> None:
            while not stopping.is_set():
                statuses.append(ask(server, content=picture(3)).status_code)

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        with all_gone(server):
            # As a service manager does it: to every process.
            for process in (psutil.Process(server.process.pid), *front_ends(server)):
                process.send_signal(signal.SIGTERM)
            wait_for(lambda: {ask(server, "/readyz").status_code for _ in range(CONNECTIONS)} == {503})
            before = len(statuses)
            wait_for(lambda: len(statuses) > before + 5)
            stopping.set()
            for thread in clients:
                thread.join()
            assert set(statuses) == {200}
            server.process.send_signal(signal.SIGTERM)  # a second one ends the grace period
            assert server.process.wait(PATIENCE) == 0


def test_images_fail_alone_and_what_is_admitted_is_answered_after_sigterm() -> None:
    with running(0.0, {"front_ends": 2, "drain_seconds": 0}) as server:
        server.wait_until_ready()
        with ThreadPoolExecutor(8) as pool:
            blocking = [pool.submit(ask, server, content=picture(1, green=SLOW)) for _ in range(2)]
            time.sleep(0.2)
            bad = pool.submit(ask, server, content=picture(1, green=NOT_FINITE))
            large = [pool.submit(ask, server, content=picture(n, green=LARGE)) for n in range(3)]
            assert {future.result().status_code for future in blocking} == {200}
            assert bad.result().status_code == 500
            assert [one.result().json()["results"][0]["label"] for one in large] == ["0", "1", "2"]
            slow = [pool.submit(ask, server, content=picture(1, green=SLOW)) for _ in range(3)]
            wait_for(lambda: sum(samples(server, "mass_requests_in_progress").values()) == len(slow))
            server.process.send_signal(signal.SIGTERM)
            assert [future.result().status_code for future in slow] == [200] * len(slow)
        assert server.process.wait(PATIENCE) == 0


def test_texts_are_made_into_tokens_by_front_ends(text_store: Path) -> None:
    texts = ["a text", "Angela lives in Paris"]
    asked: dict[str, Any] = {"json": {"texts": texts}}
    named = {"path": "/v1/classify?tasks=names", "json": {"texts": texts}}
    with serving(text_store) as alone:
        alone.wait_until_ready()
        expected = [ask(alone, **request).json() for request in (asked, named)]
    with serving(text_store, front_ends=2) as server:
        server.wait_until_ready()
        for request, before in zip((asked, named), expected, strict=True):
            assert ask(server, **request).json()["results"] == before["results"]


def test_what_cannot_start_says_so_once(tmp_path: Path) -> None:
    with serving(tmp_path, front_ends=2) as server:
        assert server.process.wait(PATIENCE) == 2
        said = [line for line in server.log().splitlines() if line.startswith("error: ")]
        assert len(said) == 1
        assert "there is no store" in said[0]
        assert "Traceback" not in server.log()
