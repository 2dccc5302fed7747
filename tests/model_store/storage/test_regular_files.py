"""Only regular files are opened, nobody is waited for, and nothing is held in memory that has no bound."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.revisions import remove_task
from mass_serve.model_store.storage import regular_files
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.storage.regular_files import RegularFile, read_text_file, sha256_of
from mass_serve.model_store.store import Store


def test_a_file_is_read_anywhere(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    with RegularFile.open(tmp_path / "x") as file:
        assert (file.size, file.read(3, 4), file.read(0, 0)) == (10, b"3456", b"")
        with pytest.raises(EOFError):
            file.read(8, 3)
        assert sha256_of(file) == "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    file.close()


def test_what_is_no_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    os.symlink("/dev/zero", "device")
    for name, kind in (("fifo", "a FIFO"), ("socket", "a socket"), ("device", "a device"), (".", "a folder")):
        with pytest.raises(OSError, match=f"it is {kind}, and only regular files are read"):
            RegularFile.open(Path(name))
    with pytest.raises(FileNotFoundError):
        RegularFile.open(Path("gone"))


def test_a_link_leads_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "link").symlink_to("x")
    assert read_text_file(tmp_path / "link") == b"content"


def test_a_large_file_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular_files, "LARGEST_TEXT_BYTES", 7)
    (tmp_path / "x").write_bytes(b"0123456")
    assert read_text_file(tmp_path / "x") == b"0123456"
    (tmp_path / "x").write_bytes(b"01234567")
    with pytest.raises(OSError, match="it has 8 bytes, at most 7 are read"):
        read_text_file(tmp_path / "x")


@pytest.mark.parametrize("url", ["file://{}", "local://{}", "{}"])
def test_every_name_of_a_local_folder_is_one(url: str, tmp_path: Path) -> None:
    assert isinstance(open_files(url.format(tmp_path)), LocalFiles)


def test_a_fifo_as_the_lock_is_not_waited_for(store: Path) -> None:
    (store / ".lock").unlink(missing_ok=True)
    os.mkfifo(store / ".lock")
    with pytest.raises(StoreError, match="it is a FIFO"):
        remove_task(store, "digits")


def test_writing_follows_no_link_out_of_the_store(store: Path, tmp_path: Path) -> None:
    """A store from elsewhere may bring links that have the names of files which are written next."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (store / "manifest.json.partial").symlink_to(precious)
    remove_task(store, "digits")
    assert precious.read_text() == "mine"
    assert len(Store.open(store).manifest.tasks) == 1
    (store / ".lock").unlink()
    (store / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(StoreError, match="cannot be written"):
        remove_task(store, "street")
    assert not (tmp_path / "made").exists()


def test_a_fifo_in_place_of_a_new_file_is_replaced(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    os.mkfifo(tmp_path / "x.partial")
    os.mkfifo(tmp_path / "x")
    files.write_bytes("x", b"new")
    assert files.read_bytes("x") == b"new"
