"""A real server while its store changes, breaks and is repaired, and while tasks are unloaded and loaded."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task, remove_task, rollback_task
from mass_serve.model_store.store import Store
from tests.models import Suite
from tests.pictures import encode
from tests.server_processes import PATIENCE, RunningServer, serving, wait_for

PICTURE = encode(Image.linear_gradient("L").convert("RGB"))
ADMIN = {"X-API-Key": "the-admins-key"}


@contextmanager
def hot(store: Path, folder: Path) -> Iterator[RunningServer]:
    """A server that polls its store all the time and has an admin key."""
    keys = folder / "admin.keys"
    keys.write_text("the-admins-key\n")
    with serving(store, store_poll_seconds=0.1, admin_keys_file=keys, drain_seconds=0) as made:
        made.wait_until_ready()
        yield made


@pytest.fixture
def server(store: Path, tmp_path: Path) -> Iterator[RunningServer]:
    with hot(store, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def unchanged(built_of_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for the tests that leave its store and its tasks as they were."""
    with hot(built_of_all, tmp_path_factory.mktemp("hot")) as made:
        yield made


def answer(server: RunningServer, task: str) -> tuple[str, str, float]:
    """(store revision, task revision, score) of one image for one task."""
    response = server.client.post(f"/v1/classify?tasks={task}", content=PICTURE)
    assert response.status_code == 200, response.text
    result = response.json()["results"][0]
    return response.json()["store_revision"], result["task_revision"], result["score"]


def served_revision(server: RunningServer) -> str:
    revision: str = server.client.get("/readyz").json()["store_revision"]
    return revision


class Load:
    """Clients that ask all the time, and remember what went wrong and which revisions answered."""

    def __init__(self, server: RunningServer, task: str) -> None:
        self.failures: list[str] = []
        self.scores: dict[str, set[float]] = {}  # of the one image, by task revision
        self._stopping = threading.Event()
        url = f"{server.client.base_url}/v1/classify?tasks={task}"
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for _ in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url: str) -> None:
        with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
            while not self._stopping.is_set():
                response = client.post(url, content=PICTURE)
                if response.status_code != 200:
                    self.failures.append(response.text)
                    continue
                result = response.json()["results"][0]
                self.scores.setdefault(result["task_revision"], set()).add(result["score"])


def test_a_task_is_replaced_and_rolled_back_under_load(
    server: RunningServer, store: Path, suite: Suite
) -> None:
    old = Store.open(store).task("street").revision
    with Load(server, "street") as load:
        add_task(store, TaskInput("street", suite.tasks[2].checkpoint), replace=True)
        new = Store.open(store).task("street").revision
        wait_for(lambda: new in load.scores)
        for _ in range(5):
            rollback_task(store, "street")
            wait_for(lambda: served_revision(server) == Store.open(store).manifest.store_revision)
            add_task(store, TaskInput("street", suite.tasks[2].checkpoint), replace=True)
            wait_for(lambda: served_revision(server) == Store.open(store).manifest.store_revision)
    assert load.failures == []
    # Each answer is of the revision that it names: the old and the new weights give one score each.
    (old_score,) = load.scores.pop(old)
    (new_score,) = set.union(*load.scores.values())
    assert old_score != new_score
    assert server.metric("mass_task_load_failures_total") == 0
    assert f'mass_task_loaded{{revision="{old}"' not in server.client.get("/metrics").text


def test_tasks_come_and_go_with_the_store(server: RunningServer, store: Path) -> None:
    remove_task(store, "signs")
    wait_for(lambda: server.client.get("/v1/tasks/signs").status_code == 404)
    rollback_task(store, "signs")
    wait_for(lambda: server.client.get("/v1/tasks/signs").status_code == 200)


def test_a_broken_revision_does_not_harm_the_one_that_serves(
    server: RunningServer, store: Path, suite: Suite
) -> None:
    before = answer(server, "street")
    intact = (store / "manifest.json").read_bytes()
    add_task_with_damage(store, suite)
    wait_for(lambda: "load_error" in server.client.get("/readyz").json())
    assert "damaged" in server.client.get("/readyz").json()["load_error"]
    assert server.client.get("/readyz").status_code == 200
    assert answer(server, "street") == before
    assert server.metric("mass_task_load_failures_total") == 1
    assert server.metric("mass_ready") == 1
    assert "the old revision serves on" in server.log()
    (store / "manifest.json").write_bytes(intact)
    wait_for(lambda: "load_error" not in server.client.get("/readyz").json())


def add_task_with_damage(store: Path, suite: Suite) -> None:
    """A new revision of street whose blocks are not what the manifest says, put in place at one stroke."""
    copy = shutil.copytree(store, store.parent / "copy")
    add_task(copy, TaskInput("street", suite.tasks[2].checkpoint), replace=True)
    entry = Store.open(copy).task("street")
    experts = copy / entry.experts_file
    content = bytearray(experts.read_bytes())
    content[-1] ^= 1
    experts.write_bytes(content)
    shutil.copytree(experts.parent, store / experts.parent.relative_to(copy))
    (copy / "manifest.json").replace(store / "manifest.json")


@pytest.mark.parametrize("harm", ["truncated", "overwritten", "deleted", "manifest"])
def test_a_store_that_is_harmed_while_it_serves(server: RunningServer, store: Path, harm: str) -> None:
    before = answer(server, "street")
    for path in store.rglob("*.safetensors"):
        if harm == "truncated":
            path.write_bytes(b"")
        elif harm == "overwritten":
            path.write_bytes(b"\xff" * path.stat().st_size)
        elif harm == "deleted":
            path.unlink()
    if harm == "manifest":
        (store / "manifest.json").write_bytes(b"{")
        wait_for(lambda: "load_error" in server.client.get("/readyz").json())
    time.sleep(0.3)
    assert answer(server, "street") == before
    assert server.process.poll() is None


def test_a_version_that_goes_while_its_request_is_read(
    server: RunningServer, store: Path, suite: Suite
) -> None:
    """Whoever asks for one version is not answered by another."""
    old = Store.open(store).task("street").revision
    data = [base64.b64encode(PICTURE).decode()]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    body = json.dumps({"inputs": [tensor]}).encode()
    path = f"/v2/models/street/versions/{old}/infer"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(head.encode() + body[:10])
        wait_for(lambda: server.metric("mass_requests_in_progress") == 1)
        add_task(store, TaskInput("street", suite.tasks[2].checkpoint), replace=True)
        wait_for(lambda: served_revision(server) == Store.open(store).manifest.store_revision)
        connection.sendall(body[10:])
        answered = connection.recv(65536)
    assert answered.startswith(b"HTTP/1.1 404 ")


def test_a_signal_while_starting_does_not_end_the_process() -> None:
    command = [sys.executable, "-m", "mass_serve.cli", "serve", "--port", "0", "--drain-seconds", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        wait_for(lambda: _ignores(process.pid, signal.SIGHUP))
        process.send_signal(signal.SIGHUP)
        assert "loading" in process.stderr.readline(), "the program was importing, and went on"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)


def _ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(mask >> (number - 1) & 1)


def test_a_signal_polls_at_once(store: Path) -> None:
    with serving(store, store_poll_seconds=0, drain_seconds=0) as server:
        server.wait_until_ready()
        remove_task(store, "signs")
        time.sleep(0.3)
        assert server.client.get("/v1/tasks/signs").status_code == 200
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.client.get("/v1/tasks/signs").status_code == 404)


class TestRepository:
    """Triton's client, unmodified."""

    @pytest.fixture
    def client(self, server: RunningServer) -> Iterator[triton.InferenceServerClient]:
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as made:
            yield made

    @pytest.fixture
    def client_of_unchanged(self, unchanged: RunningServer) -> Iterator[triton.InferenceServerClient]:
        with triton.InferenceServerClient(f"127.0.0.1:{unchanged.port}") as made:
            yield made

    def test_unload_and_load(self, server: RunningServer, client: triton.InferenceServerClient) -> None:
        before = answer(server, "signs")
        client.unload_model("signs", headers=ADMIN)
        assert not client.is_model_ready("signs")
        assert client.is_model_ready("street")
        states = {model["name"]: model["state"] for model in client.get_model_repository_index(headers=ADMIN)}
        assert states == {"auto": "READY", "digits": "READY", "street": "READY", "signs": "UNAVAILABLE"}
        assert server.client.post("/v1/classify?tasks=signs", content=PICTURE).status_code == 404
        assert "signs" not in server.client.post("/v1/classify", content=PICTURE).text
        client.load_model("signs", headers=ADMIN)
        assert client.is_model_ready("signs")
        assert answer(server, "signs") == before

    def test_auto_loads_what_is_new(self, store: Path, client: triton.InferenceServerClient) -> None:
        remove_task(store, "signs")
        client.load_model("auto", headers=ADMIN)
        assert not client.is_model_ready("signs")

    @pytest.mark.parametrize(
        ("call", "sentence"),
        [
            (lambda c: c.load_model("cars", headers=ADMIN), "no task 'cars' in the store"),
            (lambda c: c.unload_model("cars", headers=ADMIN), "no task 'cars' in service"),
            (lambda c: c.unload_model("auto", headers=ADMIN), "unload a task"),
            (lambda c: c.load_model("street", headers=ADMIN, config="{}"), "send no parameters"),
            (lambda c: c.load_model("street", headers=ADMIN, config="x" * (1 << 20)), "1048576 bytes"),
            (lambda c: c.load_model("street"), "An admin key is needed"),
            (lambda c: c.unload_model("street", headers={"X-API-Key": "guess"}), "An admin key is needed"),
            (lambda c: c.get_model_repository_index(), "An admin key is needed"),
        ],
    )
    def test_errors(
        self,
        client_of_unchanged: triton.InferenceServerClient,
        call: Callable[[triton.InferenceServerClient], object],
        sentence: str,
    ) -> None:
        with pytest.raises(InferenceServerException, match=sentence):
            call(client_of_unchanged)
        assert client_of_unchanged.is_model_ready("street")

    def test_a_load_that_fails_says_so(
        self, store: Path, suite: Suite, client: triton.InferenceServerClient
    ) -> None:
        add_task_with_damage(store, suite)
        with pytest.raises(InferenceServerException, match="damaged"):
            client.load_model("street", headers=ADMIN)
        assert client.is_model_ready("street")

    def test_the_extension_is_named_where_it_is_open(
        self, client_of_unchanged: triton.InferenceServerClient
    ) -> None:
        assert "model_repository" in client_of_unchanged.get_server_metadata()["extensions"]

    def test_statistics(self, client: triton.InferenceServerClient) -> None:
        image = triton.InferInput("image", [2], "BYTES")
        image.set_data_from_numpy(np.array([PICTURE, PICTURE], dtype=np.object_))
        client.infer("auto", [image])
        (figures,) = client.get_inference_statistics("auto")["model_stats"]
        assert (figures["inference_count"], figures["execution_count"]) == (2, 1)
        assert figures["inference_stats"]["compute_output"]["ns"] > 0
        assert figures["inference_stats"]["cache_hit"] == {"count": 0, "ns": 0}
        assert figures["inference_stats"]["success"]["count"] == 1
        assert (
            0
            < figures["inference_stats"]["compute_infer"]["ns"]
            < figures["inference_stats"]["success"]["ns"]
        )
        bad = triton.InferInput("image", [1], "BYTES")
        bad.set_data_from_numpy(np.array([b"no image"], dtype=np.object_))
        with pytest.raises(InferenceServerException):
            client.infer("auto", [bad])
        every = {model["name"]: model for model in client.get_inference_statistics()["model_stats"]}
        assert every["auto"]["inference_stats"]["fail"]["count"] == 1
        assert every["street"]["inference_stats"]["success"]["count"] == 0
