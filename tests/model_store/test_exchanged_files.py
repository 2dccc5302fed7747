"""Files that somebody exchanges or changes while they are read: what was hashed is what is used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import psutil
import pytest
import torch

from mass_serve.model_store.errors import CheckpointError, IntegrityError
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.storage.regular_files import RegularFile
from mass_serve.model_store.store import Store
from tests.models import Suite

HEADER_AT = 8  # bytes, behind the header's length


def test_the_file_that_was_hashed_is_read(store: Path) -> None:
    opened = Store.open(store)
    path = opened.task("digits").head_file
    expected = opened.load_head("digits").tensors["weight"]
    with opened.tensors(path) as tensors:
        (store / "other").write_bytes(b"x" * 100_000)
        os.replace(store / "other", store / path)
        assert torch.equal(tensors.read("weight"), expected)
    with pytest.raises(IntegrityError, match="is damaged"):
        opened.load_head("digits")


def before_reading(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Lets something happen between the opening of a file and the reading of its first tensor."""
    read, acts = RegularFile.read_into, [act]

    def act_and_read(file: RegularFile, buffer: memoryview, start: int) -> None:
        if acts and start > HEADER_AT:
            acts.pop()()
        read(file, buffer, start)

    monkeypatch.setattr(RegularFile, "read_into", act_and_read)


def test_an_exchange_after_the_opening(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment at which a reader that opens a file twice can be deceived."""
    opened = Store.open(store)
    path = opened.task("digits").head_file
    expected = opened.load_head("digits").tensors["weight"]

    def exchange() -> None:
        (store / "other").write_bytes((store / opened.task("street").head_file).read_bytes())
        os.replace(store / "other", store / path)

    before_reading(monkeypatch, exchange)
    assert torch.equal(opened.load_head("digits").tensors["weight"], expected)


def test_bytes_that_change_in_place_are_noticed_whatever_the_time_of_the_file(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment at which a reader that hashes first and reads then can be deceived."""
    opened = Store.open(store)
    path = store / opened.task("digits").head_file

    def change_in_place() -> None:
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(before.st_size - 1)
            file.write(b"\x3e")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    before_reading(monkeypatch, change_in_place)
    with pytest.raises(IntegrityError, match="is damaged"):
        opened.load_head("digits")


def test_a_file_that_is_written_to_meanwhile_is_refused(store: Path) -> None:
    opened = Store.open(store)
    path = opened.task("digits").head_file

    def write_while_reading() -> None:
        with opened.tensors(path):
            os.utime(store / path, ns=(1, 1))

    with pytest.raises(IntegrityError, match=r"head\.safetensors .* was changed while it was read"):
        write_while_reading()


def test_a_file_that_is_cut_off_meanwhile_is_an_error_and_no_signal(store: Path) -> None:
    opened = Store.open(store)
    path = opened.task("digits").head_file

    def cut_while_reading() -> None:
        with opened.tensors(path) as tensors:
            os.truncate(store / path, 100)
            tensors.read("weight")

    with pytest.raises(IntegrityError, match="weight cannot be read: the file has become shorter"):
        cut_while_reading()


def test_the_copy_of_a_remote_file_is_nobody_elses(store: Path) -> None:
    files = open_files("memory://bucket/exchanged")
    for path in LocalFiles(store).list():
        files.write_bytes(path, (store / path).read_bytes())
    opened = Store.open_files(files)
    path = opened.task("digits").head_file
    expected = opened.load_head("digits").tensors["weight"]
    with opened.tensors(path) as tensors:
        files.write_bytes(path, b"x")
        assert torch.equal(tensors.read("weight"), expected)
    with pytest.raises(IntegrityError, match="is damaged"):
        opened.load_head("digits")
    fsspec.filesystem("memory").store.clear()


def test_a_checkpoint_that_is_exchanged_after_it_was_opened_is_refused(suite: Suite, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(suite.pretrained, folder)
    weights = folder / "model.safetensors"
    checkpoint = Checkpoint.open(folder)
    (tmp_path / "other").write_bytes(weights.read_bytes())
    os.replace(tmp_path / "other", weights)
    with pytest.raises(CheckpointError, match=r"model\.safetensors was changed while it was used"):
        checkpoint.parameter("class_embedding")


def test_open_checkpoints_hold_no_descriptors(suite: Suite) -> None:
    """A suite may have more files than a process may have descriptors."""
    before = psutil.Process().num_fds()
    checkpoints = [Checkpoint.open(suite.pretrained) for _ in range(5)]
    assert checkpoints[0].parameter("class_embedding").numel()
    assert psutil.Process().num_fds() == before
