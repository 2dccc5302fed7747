"""A server that has too little of something, or a store that hangs or lies, says so and serves or ends."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from benchmarks.hostile import pictures
from benchmarks.hostile.arena import PICTURE
from benchmarks.hostile.attacks import MIB
from mass_serve.server.startup import demo_store
from tests.hostile.harms import assert_that_it_says
from tests.hostile.test_stores import HARMS
from tests.server_processes import PATIENCE, ROOT, RunningServer, server_process, serving

LOAD_TIMEOUT = 2.0
# Of a store that is to be loaded once before it hangs.
LONGER_LOAD_TIMEOUT = 5.0
# A load or an exit that has a deadline ends this much after it at the latest, on a busy machine.
GRACE = 20.0
# Importing torch takes seconds, and many of them where others want the processor, too.
START_SECONDS = 120.0
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
    """Starts `serve` with arguments that it must refuse, and returns the line that says why."""
    command = [*prefix, sys.executable, "-m", "mass_serve.cli", "serve", *arguments, "--port", "0"]
    done = subprocess.run(
        command, cwd=ROOT, text=True, stderr=subprocess.PIPE, timeout=START_SECONDS, check=False
    )
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0], "the last word is the reason, in one line"
    return lines[0]


@pytest.mark.parametrize("stage", ["loading", "idle", "used"])
def test_sigterm_ends_a_server_that_can_start_no_thread(stage: str, flag: Path) -> None:
    """An end that needs one more thread would not come, and early on few are there already."""
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
        # A load may have failed for want of memory before the signal came.
        assert server.process.wait(GRACE) in ({0, 1} if stage == "loading" else {0})


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
        Path(demo_store()),
        flag,
        admin_keys_file=keys,
        store_poll_seconds=0,
        drain_seconds=0,
        load_timeout=LONGER_LOAD_TIMEOUT,
    ) as server:
        server.wait_until_ready()
        flag.touch()
        started = time.monotonic()
        reply = server.client.post(
            "/v2/repository/models/auto/load", headers={"Authorization": "Bearer of-an-admin"}
        )
        assert reply.status_code == 504, reply.text
        assert time.monotonic() - started < LONGER_LOAD_TIMEOUT + GRACE
        ready = server.client.get("/readyz")
        assert ready.status_code == 200, "the old revision serves on"
        assert ready.json()["load_error"]
        assert server.metric('mass_oldest_seconds{what="load"}') >= LONGER_LOAD_TIMEOUT
        assert good_answer(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(GRACE) == 0


# One of a manifest and one of tensors: what else stores do, and what is said of each, is in test_stores.py.
@pytest.mark.parametrize("name", ["fifo_manifest", "nan_blocks"])
def test_a_store_that_lies_ends_the_server_with_one_line(copy: Path, name: str) -> None:
    HARMS[name].change(copy)
    assert_that_it_says(ended_with_one_line([str(copy)]), HARMS[name])
