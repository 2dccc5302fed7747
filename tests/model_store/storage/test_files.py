"""Local and remote places: whole files or none, and one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import (
    IntegrityError,
    ManifestError,
    StoreError,
    StoreExistsError,
    StoreLockedError,
)
from mass_serve.model_store.revisions import add_task, prune_store, remove_task, rollback_task
from mass_serve.model_store.storage.files import StoreFiles, without_credentials
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from tests.models import Suite

WITH_PASSWORD = "memory://user:pass@bucket/stores/none"
MEMORY = "memory://bucket/stores/one"


@pytest.fixture(params=["local", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreFiles]:
    """An empty place of either kind."""
    yield open_files(tmp_path / "place" if request.param == "local" else MEMORY)
    fsspec.filesystem("memory").store.clear()


def test_files_come_back(files: StoreFiles) -> None:
    assert files.list() == []
    files.write_bytes("a/b/c.bin", b"first")
    files.write_bytes("a/b/c.bin", b"second")
    files.write_bytes("d.bin", b"third")
    assert files.list() == ["a/b/c.bin", "d.bin"]
    assert files.read_bytes("a/b/c.bin") == b"second"
    assert (files.size("a/b/c.bin"), files.size("x")) == (6, 0)
    with files.opened("d.bin") as file:
        assert file.read(0, file.size) == b"third"
    files.delete("a/b/c.bin")
    files.delete("a/b/c.bin")
    assert files.list() == ["d.bin"]


def test_missing_files(files: StoreFiles) -> None:
    assert not files.exists("x")
    with pytest.raises(FileNotFoundError):
        files.read_bytes("x")
    with pytest.raises(FileNotFoundError), files.opened("x"):
        pass


def test_a_file_that_is_not_completed_never_appears(files: StoreFiles) -> None:
    files.write_bytes("x", b"old")

    def fail_half_way() -> None:
        with files.writing("x") as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert files.list() == ["x"]
    assert files.read_bytes("x") == b"old"


def test_writers_exclude_each_other(files: StoreFiles) -> None:
    with files.lock():
        other = open_files(files.url)
        with pytest.raises(StoreLockedError, match="another process is writing to") as caught, other.lock():
            pass
        assert "\n" not in str(caught.value)
    with files.lock():
        pass


def test_a_stale_remote_lock_says_how_to_remove_it() -> None:
    remote = open_files(MEMORY)
    with remote.lock(), pytest.raises(StoreLockedError) as caught, remote.lock():
        pass
    assert f"process {os.getpid()}" in str(caught.value)
    assert f"if it no longer runs, delete {MEMORY}/.lock" in str(caught.value)


HOLD = """
import sys, time
from pathlib import Path
from mass_serve.model_store.storage.local import LocalFiles
with LocalFiles(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_releases_a_local_lock(store: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(store)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreLockedError):
            remove_task(store, "digits")
        with pytest.raises(StoreLockedError):
            prune_store(store)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert remove_task(store, "digits").verify() == []


def test_file_urls_are_local(tmp_path: Path) -> None:
    files = open_files(f"file://{tmp_path}")
    assert isinstance(files, LocalFiles)
    assert files.root == tmp_path


def test_unknown_protocols_are_one_sentence() -> None:
    with pytest.raises(StoreError, match="nosuch://x cannot be opened"):
        open_files("nosuch://x")


@pytest.fixture
def remote(suite: Suite) -> Iterator[str]:
    """A store in an object store."""
    build(suite.pretrained, suite.tasks[:2], MEMORY, BuildOptions(merged_base="stored"))
    yield MEMORY
    fsspec.filesystem("memory").store.clear()


def test_a_remote_store_does_everything(suite: Suite, remote: str, built: Path) -> None:
    store, local = Store.open(remote), Store.open(built)
    pretrained = store.load_pretrained()
    assert all(torch.equal(pretrained[name], value) for name, value in local.load_pretrained().items())
    ours, theirs = store.load_head("digits").tensors, local.load_head("digits").tensors
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert store.load_merged_base() is not None
    add_task(remote, suite.tasks[2])
    remove_task(remote, "digits")
    rollback_task(remote, "digits")
    # Three merged bases, and two files of each task that was cut to make room for the third.
    folders = Counter(path.partition("/")[0] for path in prune_store(remote))
    assert folders == {"tasks": 4} | {name: 1 for name in folders if name.startswith("merged_base-")}
    assert len(folders) == 4
    last = Store.open(remote)
    assert last.verify() == []
    assert set(last.files.list()) == {"manifest.json", *last.manifest.all_files()}


def test_remote_damage_is_found(suite: Suite, remote: str) -> None:
    store = Store.open(remote)
    store.files.delete("pretrained.safetensors")
    with pytest.raises(IntegrityError, match=r"pretrained\.safetensors is missing"):
        store.load_pretrained()
    with pytest.raises(StoreExistsError, match="there is a store at"):
        build(suite.pretrained, suite.tasks, remote)
    with pytest.raises(ManifestError, match="there is no store at"):
        remove_task(MEMORY + "/other", "digits")


def test_no_error_shows_the_password_in_a_url() -> None:
    with pytest.raises(StoreError, match="memory://bucket/stores/none") as caught:
        Store.open(WITH_PASSWORD)
    assert "pass" not in str(caught.value)
    assert without_credentials("a@b gs://c at s3://k:s@d/e@f") == "a@b gs://c at s3://d/e@f"
