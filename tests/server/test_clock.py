"""The wall clock jumps by hours, ahead and back: nothing times out by it, and nothing stays for ever."""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from mass_serve.model_store.revisions import remove_task, rollback_task
from tests.optional import c_compiler
from tests.pictures import encode, picture
from tests.server.fakes import HANG, SLOW, SLOW_SECONDS
from tests.server_processes import PATIENCE, RunningServer, running, serving, wait_for

pytestmark = pytest.mark.optional("compiler")

HOUR = 3600
JUMPS = (6 * HOUR, -6 * HOUR, 24 * 365 * HOUR, 0)
# Nothing here takes as long, and every jump is much longer.
LONGEST = 120.0
LIMIT = 1.5
PICTURE = encode(Image.linear_gradient("L").convert("RGB"))


@dataclass(frozen=True)
class WallClock:
    """The wall clock of the servers that are started with its variables."""

    library: Path
    seconds: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "JUMPING_CLOCK": str(self.seconds)}

    def set(self, ahead: int) -> None:
        """So many seconds ahead of the real one, at once."""
        with self.seconds.open("r+b") as file:
            file.write(struct.pack("=q", ahead))

    def jump(self, server: RunningServer, ahead: int) -> None:
        """The same, and then waits until the server itself says so."""
        self.set(ahead)
        wait_for(lambda: abs(_told(server) - time.time() - ahead) < HOUR)


def _told(server: RunningServer) -> float:
    """The time in the header `Date` of an answer."""
    return parsedate_to_datetime(server.client.get("/livez").headers["Date"]).timestamp()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = c_compiler()
    assert compiler is not None
    made = tmp_path_factory.mktemp("clock") / "jumping_clock.so"
    source = Path(__file__).with_name("jumping_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source)], check=True)
    return made


@pytest.fixture
def clock(library: Path, tmp_path: Path) -> WallClock:
    seconds = tmp_path / "ahead"
    seconds.write_bytes(bytes(8))
    return WallClock(library, seconds)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def classify(server: RunningServer, data: bytes) -> httpx.Response:
    return server.client.post("/v1/classify", content=data)


def infer(server: RunningServer, data: bytes, timeout_seconds: float) -> httpx.Response:
    """With a time limit of the caller's own."""
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "data": [base64.b64encode(data).decode()],
    }
    body = {"inputs": [tensor], "parameters": {"timeout": int(timeout_seconds * 1e6)}}
    return server.client.post("/v2/models/auto/infer", json=body)


@contextmanager
def connect(server: RunningServer) -> Iterator[HTTPConnection]:
    """A connection that is not opened again by itself, as those of better clients are."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as made:
        made.auto_open = False
        made.connect()
        yield made


def status(connection: HTTPConnection) -> int:
    """Of the answer to the request that was sent last."""
    with connection.getresponse() as response:
        response.read()
        return response.status


def is_alive(connection: HTTPConnection) -> bool:
    connection.request("GET", "/livez")
    return status(connection) == 200


def begin(connection: HTTPConnection, data: bytes, sent: int) -> None:
    """A request whose body has not come yet but for its first bytes."""
    connection.putrequest("POST", "/v1/classify")
    connection.putheader("Content-Length", str(len(data)))
    connection.endheaders(data[:sent])


def test_nothing_times_out_when_the_clock_jumps(clock: WallClock, pool: ThreadPoolExecutor) -> None:
    """On the device, in the queue with and without a limit of the caller's, half sent, and idle."""
    limits = dict.fromkeys(("request_timeout", "client_timeout", "idle_timeout", "hang_timeout"), LONGEST)
    settings: dict[str, object] = {"max_batch_images": 1, **limits}
    with (
        running(0.0, settings, clock.variables) as server,
        connect(server) as half,
        connect(server) as idle,
    ):
        server.wait_until_ready()
        begin(half, picture(9), sent=20)
        assert is_alive(idle)
        for ahead in JUMPS:
            slow = pool.submit(classify, server, picture(1, green=SLOW))
            wait_for(lambda: server.metric("mass_requests_in_progress") == 2)
            waiting = [pool.submit(classify, server, picture(2)) for _ in range(2)]
            waiting += [pool.submit(infer, server, picture(3), LONGEST) for _ in range(2)]
            clock.jump(server, ahead)
            assert [request.result().status_code for request in (slow, *waiting)] == [200] * 5
            assert classify(server, picture(4)).json()["results"][0]["label"] == "4"
        half.send(picture(9)[20:])
        assert status(half) == 200
        assert is_alive(idle)
        _durations_are_sane(server)


def _durations_are_sane(server: RunningServer) -> None:
    """In the metrics, in the statistics of protocol v2, and in the log."""
    counted = (
        "mass_request_duration_seconds",
        "mass_stage_duration_seconds",
        "mass_task_load_duration_seconds",
    )
    samples = [line.rsplit(" ", 1) for line in server.client.get("/metrics").text.splitlines()]
    sums = {name: float(value) for name, value in samples if name.partition("_sum")[0] in counted}
    told = [json.loads(line) for line in server.log().splitlines()]
    logged = [(key, value) for line in told for key, value in line.items() if key.endswith("seconds")]
    (figures,) = server.client.get("/v2/models/auto/stats").json()["model_stats"]
    spent = {name: one["ns"] / 1e9 for name, one in figures["inference_stats"].items()}
    assert sums['mass_stage_duration_seconds_sum{stage="queue"}'] > SLOW_SECONDS
    assert spent["queue"] > 0
    for name, seconds in [*sums.items(), *spent.items(), *logged]:
        assert 0 <= seconds < LONGEST, name


def test_limits_hold_when_the_clock_goes_back(clock: WallClock, pool: ThreadPoolExecutor) -> None:
    """By the wall clock they would all be hours away."""
    limits = dict.fromkeys(("request_timeout", "client_timeout", "idle_timeout"), LIMIT)
    settings: dict[str, object] = {"hang_timeout": 4 * LIMIT, **limits}
    with running(0.0, settings, clock.variables) as server:
        server.wait_until_ready()
        with connect(server) as half, connect(server) as idle:
            begin(half, picture(9), sent=20)
            assert is_alive(idle)
            hung = pool.submit(classify, server, picture(1, green=HANG))
            time.sleep(LIMIT / 5)  # it is on the device by now, or one of the others might be before it
            waiting = [
                pool.submit(classify, server, picture(2)),
                pool.submit(infer, server, picture(2), LIMIT),
            ]
            time.sleep(LIMIT / 5)  # and they are in the queue
            clock.jump(server, -6 * HOUR)
            assert [request.result().status_code for request in (hung, *waiting)] == [504] * 3
            assert status(half) == 408
            assert idle.sock.recv(1) == b"", "the server has closed it"
        assert server.process.wait(PATIENCE) == 1, "the device was given up"


def test_a_full_queue_and_the_end_at_any_time(clock: WallClock, pool: ThreadPoolExecutor) -> None:
    """Who is refused is told a wait of seconds, and a drain takes no longer."""
    settings: dict[str, object] = {"max_batch_images": 1, "queue_images": 1, "max_images_per_request": 1}
    settings["drain_seconds"] = 2 * SLOW_SECONDS
    with running(0.0, settings, clock.variables) as server:
        server.wait_until_ready()
        for ahead in (-6 * HOUR, 6 * HOUR):
            clock.jump(server, ahead)
            running_now = pool.submit(classify, server, picture(1, green=SLOW))
            wait_for(lambda: server.metric("mass_requests_in_progress") == 1)
            time.sleep(SLOW_SECONDS / 5)  # it is on the device by now, and will be for a while
            waiting = pool.submit(classify, server, picture(2))
            wait_for(lambda: server.metric("mass_queue_depth") == 1)
            refused = classify(server, picture(3))
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
            assert [running_now.result().status_code, waiting.result().status_code] == [200, 200]
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.client.get("/readyz").status_code == 503)
        clock.set(-6 * HOUR)
        assert server.process.wait(PATIENCE) == 0


def test_keys_and_revisions_are_followed_whatever_the_time(clock: WallClock, store: Path) -> None:
    keys = clock.seconds.with_name("keys")
    keys.write_text("key-0\n")
    options: dict[str, Any] = {"inference_keys_file": keys, "store_poll_seconds": 0.1}
    with serving(store, clock.variables, **options) as server:
        server.wait_until_ready()
        for number, ahead in enumerate(JUMPS, 1):
            clock.jump(server, ahead)
            # As the machine whose clock was set writes them: the time of the file jumps with it.
            keys.write_text(f"key-{number}\n")
            os.utime(keys, (time.time() + ahead, time.time() + ahead))
            key = {"X-API-Key": f"key-{number}"}
            wait_for(lambda key=key: server.client.get("/v1/tasks", headers=key).status_code == 200)  # type: ignore[misc]
            old = {"X-API-Key": f"key-{number - 1}"}
            assert server.client.get("/v1/tasks", headers=old).status_code == 401
            there = number % 2 == 0
            (rollback_task if there else remove_task)(store, "signs")
            expected = 200 if there else 404
            wait_for(
                lambda key=key, expected=expected: (  # type: ignore[misc]
                    server.client.get("/v1/tasks/signs", headers=key).status_code == expected
                )
            )
            answer = server.client.post("/v1/classify?tasks=digits", content=PICTURE, headers=key)
            assert answer.status_code == 200
