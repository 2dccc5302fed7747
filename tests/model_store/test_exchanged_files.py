"""Files that somebody exchanges or changes while they are read: what was hashed is what is used."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest
import torch

from mass_serve.model_store import store as store_module
from mass_serve.model_store.errors import IntegrityError
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.storage.regular_files import RegularFile, sha256_of
from mass_serve.model_store.store import Store
from tests.models import Suite


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


def test_an_exchange_right_after_the_hash(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment at which a reader that opens a file twice can be deceived."""
    opened = Store.open(store)
    path = opened.task("digits").head_file
    expected = opened.load_head("digits").tensors["weight"]

    def hash_and_exchange(file: RegularFile) -> str:
        digest = sha256_of(file)
        other = opened.task("street").head_file
        (store / "other").write_bytes((store / other).read_bytes())
        os.replace(store / "other", store / path)
        return digest

    monkeypatch.setattr(store_module, "sha256_of", hash_and_exchange)
    assert torch.equal(opened.load_head("digits").tensors["weight"], expected)


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


def test_a_checkpoint_is_read_as_it_was_opened(suite: Suite, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for path in suite.pretrained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    checkpoint = Checkpoint.open(folder)
    (tmp_path / "other").write_bytes(b"x")
    os.replace(tmp_path / "other", folder / "model.safetensors")
    expected = Checkpoint.open(suite.pretrained).parameter("class_embedding")
    assert torch.equal(checkpoint.parameter("class_embedding"), expected)
