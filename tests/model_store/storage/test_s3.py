"""Stores and checkpoints on S3: a server that speaks its protocol, and the client that users have."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError, StoreLockedError
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task, prune_store, remove_task, rollback_task
from mass_serve.model_store.sources import resolve
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from tests.models import Suite
from tests.pictures import picture
from tests.server_processes import RunningServer, serving, wait_for

pytestmark = [pytest.mark.optional("s3"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

STORE, MODELS = "s3://bucket/stores/one", "s3://bucket/models"


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture
def variables(endpoint: str, tmp_path: Path) -> dict[str, str]:
    """What the environment tells every client of S3."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.fixture
def s3(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 with one empty bucket."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    filesystem = fsspec.filesystem("s3")
    filesystem.mkdir("bucket")
    yield filesystem
    filesystem.rm("bucket", recursive=True)


def test_a_store_does_everything(s3: Any, suite: Suite, built: Path) -> None:
    build(suite.pretrained, suite.tasks[:2], STORE, BuildOptions(merged_base="stored"))
    store, local = Store.open(STORE), Store.open(built)
    pretrained = store.load_pretrained()
    assert all(torch.equal(pretrained[name], value) for name, value in local.load_pretrained().items())
    add_task(STORE, suite.tasks[2])
    remove_task(STORE, "digits")
    rollback_task(STORE, "digits")
    assert prune_store(STORE)
    last = Store.open(STORE)
    assert last.verify() == []
    assert set(last.files.list()) == {"manifest.json", *last.manifest.all_files()}
    assert s3.exists("bucket/stores/one/manifest.json")


def test_two_writers_exclude_each_other(s3: Any) -> None:
    with open_files(STORE).lock():
        told = "another process is writing to s3://bucket/stores/one: user "
        with pytest.raises(StoreLockedError, match=told), open_files(STORE).lock():
            pass
    with open_files(STORE).lock():
        assert s3.exists("bucket/stores/one/.lock")
    assert not s3.exists("bucket/stores/one/.lock")


def _served(server: RunningServer) -> str:
    content = server.client.post("/v1/classify?tasks=street", content=picture(200)).json()
    return str(content["results"][0]["task_revision"])


def test_a_served_store_is_exchanged_while_it_runs(s3: Any, suite: Suite, variables: dict[str, str]) -> None:
    build(suite.pretrained, suite.tasks[:2], STORE)
    assert s3.exists("bucket/stores/one/manifest.json")
    with serving(STORE, variables, store_poll_seconds=0.2, device="cpu") as server:
        server.wait_until_ready()
        assert _served(server) == Store.open(STORE).task("street").revision
        add_task(STORE, TaskInput("street", suite.tasks[2].checkpoint), replace=True)
        new = Store.open(STORE).task("street").revision
        wait_for(lambda: _served(server) == new)


def test_checkpoints(s3: Any, suite: Suite, tmp_path: Path) -> None:
    task = suite.tasks[0]
    s3.put(str(suite.pretrained) + "/", "bucket/models/base/", recursive=True)
    s3.put(str(task.checkpoint) + "/", "bucket/models/digits/", recursive=True)
    base, digits = resolve(f"{MODELS}/base"), resolve(f"{MODELS}/digits")
    assert digits.origin is not None
    found = TaskInput("digits", digits.path, origins=(digits.origin,))
    store = build(base.path, [found], tmp_path / "store", origin=base.origin)
    here = build(suite.pretrained, [task], tmp_path / "here")
    assert store.manifest.pretrained_origin == base.origin
    assert store.manifest.tasks[0].files == here.manifest.tasks[0].files, "the same bytes"
    assert store.manifest.tasks[0].origins[0].files.keys() >= {"model.safetensors", "head.safetensors"}
    with pytest.raises(CheckpointError, match="s3://bucket/models/none does not exist"):
        resolve(f"{MODELS}/none")


def test_a_large_object_goes_on_where_it_stopped(s3: Any, suite: Suite) -> None:
    s3.put(str(suite.pretrained) + "/", "bucket/models/base/", recursive=True)
    folder = resolve(f"{MODELS}/base").path
    whole = (folder / "model.safetensors").read_bytes()
    (folder / ".complete.json").unlink()
    version = f"{s3.checksum('bucket/models/base/model.safetensors'):x}"[:32]
    (folder / f"model.safetensors.{version}.partial").write_bytes(b"!" + whole[1:50_000])
    again = (resolve(f"{MODELS}/base").path / "model.safetensors").read_bytes()
    assert again == b"!" + whole[1:], "its beginning was there and did not come again"
