"""Loading, overload, deadlines, hang-ups, draining and death of real server processes."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.pictures import picture
from tests.server.fakes import DIE, HANG, LARGE, NOT_FINITE, SLOW, SLOW_SECONDS
from tests.server_processes import PATIENCE, RunningServer, StartServer, wait_for

SLOW_PICTURE = picture(1, green=SLOW)


def classify(server: RunningServer, data: bytes) -> httpx.Response:
    return server.client.post("/v1/classify", content=data)


def test_alive_but_not_ready_while_loading_and_stopped_without_fuss(start_server: StartServer) -> None:
    server = start_server(load_seconds=60, drain_seconds=0)
    assert server.client.get("/livez").status_code == 200
    for path in ("/readyz", "/v1/tasks"):
        response = server.client.get(path)
        assert response.status_code == 503
        assert "loading" in response.json()["error"]
        assert int(response.headers["Retry-After"]) > 0
    ready = server.client.get("/v2/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "live": True})
    assert int(ready.headers["Retry-After"]) > 0
    assert classify(server, picture(1)).status_code == 503
    assert server.client.get("/").status_code == 200
    assert server.metric("mass_ready") == 0
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0


def test_a_full_queue_refuses_at_once_and_a_hang_up_frees_it(start_server: StartServer) -> None:
    server = start_server(max_batch_images=1, queue_images=2, max_images_per_request=2)
    server.wait_until_ready()
    assert classify(server, picture(1)).status_code == 200  # the worker processes have started by then
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(classify, server, SLOW_PICTURE)
        wait_for(lambda: server.metric("mass_requests_in_progress") == 1)
        time.sleep(SLOW_SECONDS / 5)  # it is on the device by now, and will be for a while
        assert server.metric("mass_queue_depth") == 0
        waiting = [pool.submit(classify, server, picture(2)) for _ in range(2)]
        wait_for(lambda: server.metric("mass_queue_depth") == 2)
        _is_refused(classify(server, picture(3)))
        assert not running.done()
        assert [future.result().status_code for future in (running, *waiting)] == [200, 200, 200]
    assert server.metric('mass_rejected_total{reason="queue_full"}') == 1
    assert server.metric("mass_queue_depth") == 0
    _a_hang_up_frees_the_queue(server)


def _is_refused(response: httpx.Response) -> None:
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0
    assert "queue is full" in response.json()["error"]


def _a_hang_up_frees_the_queue(server: RunningServer) -> None:
    batches = server.metric("mass_batch_size_count")
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(SLOW_PICTURE)}\r\n\r\n"
    connections: list[socket.socket] = []
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(head.encode() + SLOW_PICTURE)
        connections.append(connection)
        wait_for(lambda: server.metric("mass_requests_in_progress") == len(connections))
        wait_for(lambda: server.metric("mass_queue_depth") == len(connections) - 1)
    for connection in connections:
        connection.close()
    wait_for(lambda: server.metric("mass_queue_depth") == 0)
    wait_for(lambda: server.metric('mass_rejected_total{reason="client_gone"}') == 3)
    assert classify(server, picture(4)).status_code == 200
    assert server.metric("mass_batch_size_count") == batches + 2  # the one on the device, and the last


def test_a_deadline_is_kept(start_server: StartServer) -> None:
    server = start_server(max_batch_images=1, request_timeout=1.5 * SLOW_SECONDS)
    server.wait_until_ready()
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(classify, server, SLOW_PICTURE) for _ in range(3)]
        assert sorted(future.result().status_code for future in slow) == [200, 504, 504]
    assert server.metric('mass_rejected_total{reason="deadline"}') == 2
    # The second had begun when its time ran out; the third never reached the device.
    assert classify(server, picture(4)).status_code == 200
    assert server.metric("mass_batch_size_count") == 3


def test_a_dead_worker_fails_all_at_once_and_ends_the_process(start_server: StartServer) -> None:
    server = start_server(max_batch_images=1)
    server.wait_until_ready()
    with ThreadPoolExecutor(8) as pool:
        running = pool.submit(classify, server, SLOW_PICTURE)
        time.sleep(0.1)
        fatal = pool.submit(classify, server, picture(1, green=DIE))
        time.sleep(0.1)
        waiting = [pool.submit(classify, server, SLOW_PICTURE) for _ in range(4)]
        assert running.result().status_code == 200
        assert fatal.result().status_code == 503
        started = time.monotonic()
        assert {future.result().status_code for future in waiting} == {503}
        assert time.monotonic() - started < SLOW_SECONDS
    assert server.client.get("/livez").status_code == 503
    assert server.client.get("/readyz").status_code == 503
    assert classify(server, picture(1)).status_code == 503
    assert server.process.wait(PATIENCE) == 1


def test_a_hung_device_is_noticed_and_ends_the_process(start_server: StartServer) -> None:
    server = start_server(max_batch_images=1, max_batch_seconds=0.25, hang_timeout=0.5)
    server.wait_until_ready()
    with ThreadPoolExecutor(4) as pool:
        started = time.monotonic()
        hung = pool.submit(classify, server, picture(1, green=HANG))
        time.sleep(0.1)
        waiting = [pool.submit(classify, server, picture(2)) for _ in range(2)]
        assert {future.result().status_code for future in (hung, *waiting)} == {503}
        assert time.monotonic() - started < SLOW_SECONDS + 5
    assert server.client.get("/livez").status_code == 503
    assert server.process.wait(PATIENCE) == 1


def test_images_that_fail_the_model_fail_alone(start_server: StartServer) -> None:
    """One has no finite answer; others do not fit the memory together."""
    server = start_server()
    server.wait_until_ready()
    with ThreadPoolExecutor(8) as pool:
        blocking = pool.submit(classify, server, SLOW_PICTURE)
        time.sleep(0.2)
        bad = pool.submit(classify, server, picture(1, green=NOT_FINITE))
        large = [pool.submit(classify, server, picture(n, green=LARGE)) for n in range(3)]
        assert blocking.result().status_code == 200
        assert bad.result().status_code == 500
        assert "not finite" in bad.result().json()["error"]
        labels = [future.result().json()["results"][0]["label"] for future in large]
        assert labels == ["0", "1", "2"]
    assert server.client.get("/livez").status_code == 200


def test_sigterm_under_load_loses_nothing(start_server: StartServer) -> None:
    """Clients that heed readiness, as a balancer does, see no failure at all."""
    server = start_server(drain_seconds=PATIENCE, log_level="error")
    server.wait_until_ready()
    statuses: list[int] = []
    stopping = threading.Event()

    def client() -> None:
        while not stopping.is_set():
            statuses.append(
                httpx.post(
                    f"{server.client.base_url}/v1/classify", content=picture(3), trust_env=False
                ).status_code
            )

    clients = [threading.Thread(target=client) for _ in range(6)]
    for thread in clients:
        thread.start()
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.client.get("/readyz").status_code == 503)
    still_served = classify(server, picture(4))
    assert still_served.status_code == 200
    assert still_served.headers["Connection"] == "close"
    assert server.client.get("/livez").status_code == 200
    assert int(server.client.get("/v2/models/auto/ready").headers["Retry-After"]) > 0
    before = len(statuses)
    wait_for(lambda: len(statuses) > before + 5)
    stopping.set()
    for thread in clients:
        thread.join()
    assert set(statuses) == {200}
    server.process.send_signal(signal.SIGTERM)  # a second one ends the grace period
    assert server.process.wait(PATIENCE) == 0


def test_work_that_outlasts_the_grace_period_is_still_answered_and_logged(start_server: StartServer) -> None:
    server = start_server(drain_seconds=0, max_batch_images=1)
    server.wait_until_ready()
    headers = {"X-Request-Id": "find-me", "Authorization": "Bearer secret", "Cookie": "secret"}
    assert server.client.post("/v1/classify", content=picture(1), headers=headers).status_code == 200
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(classify, server, SLOW_PICTURE) for _ in range(3)]
        wait_for(lambda: server.metric("mass_queue_depth") == 2)
        server.process.send_signal(signal.SIGTERM)
        assert [future.result().status_code for future in slow] == [200] * 3
    assert server.process.wait(PATIENCE) == 0
    _tells_each_request_and_no_secret(server.log())


def test_a_request_that_outlasts_the_drain_is_told_so(start_server: StartServer) -> None:
    server = start_server(drain_seconds=0, request_timeout=0.5, cors_origins="https://app.example.com")
    server.wait_until_ready()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example.com\r\n"
        connection.sendall(head + b"Content-Length: 100000\r\n\r\nabc")
        wait_for(lambda: server.metric("mass_requests_in_progress") == 1)
        server.process.send_signal(signal.SIGTERM)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in head.lower()
    assert b"x-request-id: " in head.lower()
    assert b"access-control-allow-origin: https://app.example.com" in head.lower()
    assert "shutting down" in json.loads(body)["error"]
    assert server.process.wait(PATIENCE) == 0
    assert '"status": 503' in server.log()


def _tells_each_request_and_no_secret(log: str) -> None:
    """One JSON line per request, with its id and its stages, and never a header."""
    lines = [json.loads(line) for line in log.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert len(requests) == 4
    (line,) = [line for line in requests if line["request_id"] == "find-me"]
    assert (line["status"], line["images"], line["path"]) == (200, 1, "/v1/classify")
    assert {"decode_seconds", "queue_seconds", "first_pass_seconds", "second_pass_seconds"} <= set(line)
    assert "secret" not in log
