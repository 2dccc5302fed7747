"""The end of a process that can start no thread, and starts that would only fail later."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.settings import SettingsError, load_settings
from mass_serve.server.web.process import TASK_DESCRIPTORS, count_failed_accepts, need_descriptors
from tests.pictures import picture
from tests.server_processes import PATIENCE, ROOT, RunningServer, StartServer, running, wait_for

# Less than a thread's stack, and enough for the few objects that an end needs.
LEFT_BYTES = 4 << 20
DRAIN_SECONDS = 0.5
REQUEST_TIMEOUT = 2.0
PROMISED_SECONDS = DRAIN_SECONDS + 2 * REQUEST_TIMEOUT


def fill_address_space(server: RunningServer) -> None:
    """Leaves the process no room for another thread."""
    used = psutil.Process(server.process.pid).memory_info().vms
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (used + LEFT_BYTES, used + LEFT_BYTES))


@pytest.mark.parametrize("stage", ["loading", "idle", "used"])
def test_sigterm_ends_a_process_that_can_start_no_thread(tmp_path: Path, stage: str) -> None:
    gate = tmp_path / "hangs"
    settings: dict[str, object] = {"drain_seconds": DRAIN_SECONDS, "request_timeout": REQUEST_TIMEOUT}
    if stage == "loading":
        gate.touch()
    with running(0.0, settings, {"FAKE_STORE_HANGS": str(gate)}) as server:
        if stage != "loading":
            server.wait_until_ready()
        if stage == "used":
            assert server.client.post("/v1/classify", content=picture(1)).status_code == 200
        assert server.client.get("/livez").status_code == 200  # its own threads have started
        fill_address_space(server)
        assert server.client.get("/livez").status_code == 200
        assert server.client.get("/metrics").status_code == 200  # when they are wanted most
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) in (0, 1)
        # What a busy machine adds is not promised.
        assert time.monotonic() - started < 2 * PROMISED_SECONDS + 10


def test_a_first_load_that_hangs_ends_the_process_and_says_so(tmp_path: Path) -> None:
    gate = tmp_path / "hangs"
    gate.touch()
    with running(0.0, {"load_timeout": 3.0}, {"FAKE_STORE_HANGS": str(gate)}) as server:
        ready = server.client.get("/readyz")
        assert ready.status_code == 503
        assert "loading for " in ready.json()["error"]
        assert server.metric('mass_oldest_seconds{what="load"}') >= 0
        assert server.process.wait(PATIENCE) == 1
        assert "load_timeout" in server.log().splitlines()[-1]
        assert "Traceback" not in server.log()


def test_a_later_load_that_hangs_harms_nobody_and_goes_on(tmp_path: Path) -> None:
    """Served on meanwhile; who waits gets a 504, who comes later a 503 at once; SIGTERM is heard."""
    gate, keys = tmp_path / "hangs", tmp_path / "keys"
    keys.write_text("admin\n")
    settings = {
        "load_timeout": 2.0,
        "admin_keys_file": str(keys),
        "store_poll_seconds": 0,
        "drain_seconds": 0,
    }
    admin = {"Authorization": "Bearer admin"}
    with running(0.0, settings, {"FAKE_STORE_HANGS": str(gate)}) as server:
        server.wait_until_ready()
        load = "/v2/repository/models/auto/load"
        assert server.client.post(load, headers=admin).status_code == 200
        gate.touch()
        waited = server.client.post(load, headers=admin)
        assert waited.status_code == 504
        assert "load_timeout" in waited.json()["error"]
        wait_for(lambda: "load_error" in server.client.get("/readyz").json())
        ready = server.client.get("/readyz")
        assert ready.status_code == 200
        assert "not answered" in ready.json()["load_error"]
        assert server.metric('mass_oldest_seconds{what="load"}') > 2.0
        for path in (load, "/v2/repository/models/digits/unload", "/v2/repository/models/digits/load"):
            refused = server.client.post(path, headers=admin)
            assert refused.status_code == 503
            assert "serves on" in refused.json()["error"]
        assert server.client.post("/v1/classify", content=picture(1)).status_code == 200
        wait_for(lambda: "loading hangs" in server.log())
        gate.unlink()
        wait_for(lambda: "load_error" not in server.client.get("/readyz").json())
        assert server.client.post(load, headers=admin).status_code == 200
        gate.touch()
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.metric('mass_oldest_seconds{what="load"}') > 0)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0


def serve_with_few_files(files: int, **variables: str) -> subprocess.CompletedProcess[str]:
    command = f"ulimit -n {files}; exec {sys.executable} -m mass_serve.cli serve --port 0"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASS_")}
    return subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        check=False,
    )


def test_too_few_descriptors_are_told_at_the_start() -> None:
    done = serve_with_few_files(64)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert "max_connections" in line
    assert "64" in line
    assert "ulimit" in line


def test_what_would_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"decode_workers": 1, "max_connections": 1000})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    with pytest.raises(SettingsError, match=r"need 1260 open files.* may have 512.* at most 252$"):
        need_descriptors(settings)


def test_the_soft_limit_is_raised_to_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"decode_workers": 1, "max_connections": 1000})
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    need_descriptors(settings)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4096, resource.RLIM_INFINITY))
    need_descriptors(settings)
    assert asked == [(1260, 4096)]


@pytest.mark.parametrize("hard", [4096, resource.RLIM_INFINITY])
def test_the_soft_limit_leaves_room_for_the_files_of_tasks(
    hard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings({"decode_workers": 1, "max_connections": 1000, "resident_task_bytes": 0})
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2000, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    need_descriptors(settings)
    assert asked == [(4096 if hard == 4096 else 1260 + TASK_DESCRIPTORS, hard)]


def test_connections_that_cannot_be_accepted_are_counted(start_server: StartServer) -> None:
    server = start_server(max_connections=50)
    server.wait_until_ready()
    descriptors = psutil.Process(server.process.pid).num_fds()
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))
    # More than one: what is open for a moment while they are counted leaves room for others.
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        name = 'mass_connections_dropped_total{reason="no_descriptor"}'
        wait_for(lambda: server.metric(name) >= 1)
    assert "no descriptor" in server.log()


def test_other_errors_of_the_loop_are_logged_with_their_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    """A file that could not be opened is no connection, though the reason is the same."""
    metrics = Metrics({})

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        count_failed_accepts(loop, metrics)

        def opens_a_file() -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        loop.call_soon(opens_a_file)
        await asyncio.sleep(0.01)

    asyncio.run(serve())
    dropped = metrics.registry.get_sample_value("mass_connections_dropped_total", {"reason": "no_descriptor"})
    assert dropped == 0.0
    assert "opens_a_file" in caplog.text
    assert "Traceback" in caplog.text
