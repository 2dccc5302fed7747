"""What a process meets that has too little of something, or a store that hangs or lies."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.hostile import pictures
from benchmarks.hostile.arena import PICTURE, server_errors
from mass_serve.server.startup import demo_store
from tests.server_processes import PATIENCE, ROOT, RunningServer, server_process, serving

LOAD_TIMEOUT = 2.0
# A load or an exit that has a deadline ends this much after it at the latest, on a busy machine.
GRACE = 20.0
# Importing torch takes seconds, and many of them where others want the processor, too.
START_SECONDS = 120.0
MIB = 1 << 20
# Otherwise a new thread gets the stack of one that has ended, and needs no memory.
NO_SPARE_STACKS = {"GLIBC_TUNABLES": "glibc.pthread.stack_cache_size=0"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the demo store, to be spoilt."""
    return shutil.copytree(demo_store(), tmp_path / "store")


def stalled(
    store: Path, flag: Path, variables: Mapping[str, str] | None = None, **settings: object
) -> AbstractContextManager[RunningServer]:
    """A server whose store hangs while the flag exists."""
    command = [sys.executable, "-m", "tests.hostile.stalled_store", str(flag), str(store)]
    return server_process(command, {"load_timeout": LOAD_TIMEOUT, **settings}, variables)


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """A file in whose presence reads hang; there from the beginning."""
    path = tmp_path / "the-network-is-away"
    path.touch()
    return path


def good_answer(server: RunningServer) -> bool:
    response = server.client.post("/v1/classify", content=PICTURE.read_bytes())
    return response.status_code == 200 and response.json()["results"][0]["label"] == "three"


def limit_memory(pid: int, more: int) -> None:
    """Lets a process have this much more address space than it has."""
    limit = psutil.Process(pid).memory_info().vms + more
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def ended_with_one_line(arguments: list[str], prefix: tuple[str, ...] = ()) -> str:
    """Starts `serve` with arguments that it must refuse; the line that says why."""
    command = [*prefix, sys.executable, "-m", "mass_serve.cli", "serve", *arguments, "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, text=True, stderr=subprocess.PIPE, timeout=PATIENCE, check=False)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0], "the last word is the reason, in one line"
    return lines[0]


@pytest.mark.parametrize("stage", ["loading", "idle", "used"])
def test_sigterm_ends_a_server_that_can_start_no_thread(stage: str, flag: Path) -> None:
    """Early on it has few threads that wait for work, and an end that needs one more would not come."""
    if stage != "loading":
        flag.unlink()
    with stalled(
        Path(demo_store()), flag, NO_SPARE_STACKS, drain_seconds=0, load_timeout=10 * PATIENCE
    ) as server:
        if stage != "loading":
            server.wait_until_ready()
        if stage == "used":
            assert good_answer(server)
        assert server.client.get("/livez").status_code == 200
        limit_memory(server.process.pid, -MIB)  # full, and more than full
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(GRACE) in (0, 1)  # 1 where a load had failed for want of memory


def test_a_valid_image_for_which_there_is_no_memory_is_told_so() -> None:
    """49 megapixels as RGB are 147 MB; neither the server nor its workers get them."""
    with serving(Path(demo_store())) as server:
        server.wait_until_ready()
        assert good_answer(server)
        process = psutil.Process(server.process.pid)
        family = [process, *process.children(recursive=True)]
        for one in family:
            limit_memory(one.pid, 64 * MIB)
        response = server.client.post("/v1/classify", content=pictures.black_and_white())
        assert response.status_code == 503, response.text
        assert int(response.headers["Retry-After"]) > 0
        assert "memory" in response.json()["error"]
        for one in (process, *process.children(recursive=True)):
            resource.prlimit(one.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        assert good_answer(server)
        assert server.client.post("/v1/classify", content=pictures.black_and_white()).status_code == 200


def test_too_few_descriptors_are_refused_at_the_start() -> None:
    line = ended_with_one_line([], ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh"))
    assert "64" in line
    assert "open files" in line
    assert "ulimit" in line, "what to do about it"


def test_a_server_whose_store_never_answers_ends(flag: Path) -> None:
    """Then whoever runs it starts another one, or an operator looks."""
    with stalled(Path(demo_store()), flag) as server:
        assert server.client.get("/livez").status_code == 200
        assert server.client.get("/readyz").status_code == 503
        assert server.process.wait(LOAD_TIMEOUT + GRACE) == 1
        assert "Traceback" not in server.log()


def test_a_store_that_hangs_later_stops_neither_answers_nor_admins(flag: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("of-an-admin\n")
    keys.chmod(0o600)
    flag.unlink()
    with stalled(
        Path(demo_store()), flag, admin_keys_file=keys, store_poll_seconds=0, drain_seconds=0
    ) as server:
        server.wait_until_ready()
        flag.touch()
        started = time.monotonic()
        reply = server.client.post(
            "/v2/repository/models/auto/load", headers={"Authorization": "Bearer of-an-admin"}
        )
        assert reply.status_code == 504, reply.text
        assert time.monotonic() - started < LOAD_TIMEOUT + GRACE
        ready = server.client.get("/readyz")
        assert ready.status_code == 200, "the old revision serves on"
        assert ready.json()["load_error"]
        assert server.metric('mass_oldest_seconds{what="load"}') >= LOAD_TIMEOUT
        assert good_answer(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(GRACE) == 0


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def manifest_is_a_fifo(store: Path) -> None:
    _fifo(store / "manifest.json")


def tensors_are_a_fifo(store: Path) -> None:
    _fifo(store / "pretrained.safetensors")


def manifest_names_the_router_twice(store: Path) -> None:
    """Most parsers believe the last one: whoever reads the first sees another router than the server."""
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    router = json.dumps(manifest["router"] | {"top_k": 1})
    path.write_text(path.read_text().rstrip()[:-1] + f', "router": {router}}}')


def deviations_are_next_to_nothing(store: Path) -> None:
    """Pixels divided by 1e-300 are infinite."""
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["preprocessing"]["std"] = [1e-300] * 3
    path.write_text(json.dumps(manifest))


def numbers_are_not_finite(store: Path) -> None:
    """JSON has no NaN, but Python writes and reads it."""
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["preprocessing"]["mean"] = [float("nan")] * 3
    path.write_text(json.dumps(manifest))


def blocks_are_not_finite(store: Path) -> None:
    """NaN in one task's blocks, with the hash that the manifest wants."""
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    task = manifest["tasks"][0]
    (name,) = (name for name in task["files"] if name.endswith("experts.safetensors"))
    tensors = load_file(store / name)
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    save_file(tensors, store / name)
    task["files"][name] = sha256((store / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "spoil",
    [
        manifest_is_a_fifo,
        tensors_are_a_fifo,
        manifest_names_the_router_twice,
        deviations_are_next_to_nothing,
        numbers_are_not_finite,
        blocks_are_not_finite,
    ],
)
def test_a_store_that_lies_ends_the_server_with_one_line(copy: Path, spoil: Callable[[Path], None]) -> None:
    spoil(copy)
    line = ended_with_one_line([str(copy)])
    assert str(copy) in line or "manifest" in line or "safetensors" in line or "task" in line


def everything(port: int, request: bytes) -> bytes:
    """What comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_body_that_breaks_off_on_an_unknown_path_alarms_nobody() -> None:
    """What the caller broke is the caller's mistake: no 5xx is counted, and no error is logged."""
    head = b"POST /v1/nosuch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"
    with serving(Path(demo_store())) as server:
        server.wait_until_ready()
        answer = everything(server.port, head)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error"}
        levels = {json.loads(line)["level"] for line in server.log().splitlines()}
        assert levels <= {"info", "warning"}
        assert good_answer(server)
        assert server_errors(server.client) == 0
