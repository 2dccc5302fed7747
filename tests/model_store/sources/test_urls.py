"""Models at URLs that fsspec knows, and paths of this machine."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mass_serve.model_store.errors import CheckpointError, StoreLockedError
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.sources import resolve
from mass_serve.model_store.sources.urls import cache_folder
from mass_serve.model_store.storage.local import LocalFiles
from tests.models import Suite

URL = "memory://bucket/models/base"
FULL = OSError(errno.ENOSPC, "No space left on device")
NO_ENTRY = PermissionError("Access Denied")


@pytest.fixture
def remote(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A filesystem elsewhere, with the suite's pretrained model and what nobody needs; and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    filesystem = fsspec.filesystem("memory")
    for path in suite.pretrained.iterdir():
        filesystem.pipe_file(f"/bucket/models/base/{path.name}", path.read_bytes())
    filesystem.pipe_file("/bucket/models/base/pytorch_model.bin", b"not needed")
    filesystem.pipe_file("/bucket/models/base/checkpoint-7/model.safetensors", b"not needed")
    yield filesystem
    filesystem.store.clear()


def partials() -> list[Path]:
    return list(cache_folder().rglob("*.partial"))


def refusal(name: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(name)
    return str(caught.value)


def test_a_folder_is_copied(remote: Any, suite: Suite) -> None:
    seen = []
    found = resolve(f"{URL}/", progress=lambda *call: seen.append(call))
    assert Checkpoint.open(found.path).architecture == Checkpoint.open(suite.pretrained).architecture
    assert {path.name for path in found.path.glob("[!.]*")} == {"config.json", "model.safetensors"}
    assert (f"fetching {URL}: model.safetensors", 1, 1) in seen
    assert found.origin is not None
    assert (found.origin.name, found.origin.revision) == (URL, None)
    weights = remote.cat_file("/bucket/models/base/model.safetensors")
    assert found.origin.files["model.safetensors"] == hashlib.sha256(weights).hexdigest()


def test_what_says_how_a_text_becomes_one_vector_lies_in_a_folder(remote: Any) -> None:
    remote.pipe_file("/bucket/models/base/modules.json", b"[]")
    for name in ("config.json", "README.md"):
        remote.pipe_file(f"/bucket/models/base/1_Pooling/{name}", b'{"pooling_mode_cls_token": true}')
    found = resolve(URL)
    assert found.origin is not None
    assert found.origin.files.keys() == {
        *("config.json", "model.safetensors", "modules.json", "1_Pooling/config.json")
    }
    assert (found.path / "1_Pooling" / "config.json").read_bytes() == b'{"pooling_mode_cls_token": true}'
    assert resolve(URL) == found


def test_one_file_comes_with_what_describes_it(remote: Any, suite: Suite) -> None:
    remote.pipe_file("/bucket/models/base/epoch.pt", b"a pickle")
    found = resolve(f"{URL}/model.safetensors")
    assert Checkpoint.open(found.path).architecture == Checkpoint.open(suite.pretrained).architecture
    assert refusal(f"{URL}/epoch.pt").endswith(
        "epoch.pt is a pickle: convert it to safetensors, or pass --allow-pickle"
    )
    assert resolve(f"{URL}/epoch.pt", allow_pickle=True).path.read_bytes() == b"a pickle"


def test_what_is_in_the_cache_is_used_while_it_is_the_same(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve(URL)
    with monkeypatch.context() as patched:
        patched.delattr(MemoryFileSystem, "_open")
        assert resolve(URL) == first, "nothing was read"
    (first.path / "config.json").write_text("{}")
    assert resolve(URL) == first, "a damaged copy is fetched again"
    remote.pipe_file("/bucket/models/base/config.json", b'{"model_type": "clip"}')
    assert (resolve(URL).path / "config.json").read_text() == '{"model_type": "clip"}'
    (first.path / ".complete.json").write_text("{")
    assert resolve(URL).path == first.path


def test_a_copy_that_was_cut_short_goes_on(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = remote.cat_file("/bucket/models/base/model.safetensors")
    opened, half = MemoryFileSystem._open, len(weights) // 2
    reads: list[int] = []

    class Breaking:
        """A file whose connection breaks off at its half, once."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

        def seek(self, position: int) -> None:
            reads.append(position)
            self.file.seek(position)

        def read(self, _: int) -> bytes:
            if self.file.tell() >= half and len(reads) == 1:
                raise ConnectionResetError("reset by peer")
            return bytes(self.file.read(half if len(reads) == 1 else -1))

    def breaking(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        file = opened(self, path, *arguments, **options)
        return Breaking(file) if path.endswith("model.safetensors") else file

    monkeypatch.setattr(MemoryFileSystem, "_open", breaking)
    assert refusal(URL) == f"{URL} cannot be fetched: reset by peer; run the same command again to go on"
    assert [path.stat().st_size for path in partials()] == [half]
    assert (resolve(URL).path / "model.safetensors").read_bytes() == weights
    assert reads == [0, half]
    assert partials() == []


def test_what_was_changed_meanwhile_starts_over(remote: Any, suite: Suite) -> None:
    folder = resolve(URL).path
    (folder / "config.json.0123.partial").write_bytes(b"half of an earlier one")
    remote.pipe_file(
        "/bucket/models/base/config.json", (suite.pretrained / "config.json").read_bytes() + b"\n"
    )
    resolve(URL)
    assert (folder / "config.json").read_bytes().endswith(b"\n")
    assert partials() == []


def test_a_file_that_ends_early(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    size = MemoryFileSystem.size
    monkeypatch.setattr(MemoryFileSystem, "size", lambda self, path: size(self, path) + 5)
    assert "config.json ended after " in refusal(URL)
    assert remote.exists("/bucket/models/base/config.json")


def test_two_programs_take_turns(remote: Any) -> None:
    folder = resolve(URL).path
    with LocalFiles(folder).lock(), pytest.raises(StoreLockedError, match="another process is writing to"):
        resolve(URL)
    assert remote.exists("/bucket/models/base/config.json")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("memory://bucket/none", "memory://bucket/none does not exist"),
        ("memory://user:secret@bucket/none", "memory://bucket/none does not exist"),
        ("nosuch://bucket/model", "nosuch://bucket/model cannot be opened: Protocol not known: nosuch"),
        ("https://u:p@host/model", "https://host/model: nothing is fetched by https:// - download it"),
        ("hf://org/model", "models of the hub are named hf:org/model, here hf:org/model"),
        ("file:///no/such", "/no/such does not exist"),
        (
            "openai/clip-vit-base-patch32",
            "if it is a model of the hub, name it hf:openai/clip-vit-base-patch32",
        ),
        ("models/cars@v2", "if it is a model of the hub, name it hf:models/cars@v2"),
        ("./models/cars", "models/cars does not exist"),
        ("models", "models does not exist"),
        ("mo\0del", "does not exist"),
        ("/dev/null/model", "/dev/null/model does not exist"),
    ],
)
def test_names_that_lead_nowhere(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert told in refusal(name)
    assert ("name it hf:" in told) == ("name it hf:" in refusal(name))
    assert list(tmp_path.iterdir()) == [], "no folder was made"


@pytest.mark.parametrize(
    "file",
    [
        "my model.safetensors",
        "_x.safetensors",
        ".complete.json",
        f"{'a' * 220}.safetensors",
        "modèle.safetensors",
    ],
)
def test_files_that_no_manifest_can_name_are_not_copied(remote: Any, file: str) -> None:
    remote.pipe_file(f"/bucket/models/base/{file}", b"weights")
    told = (
        f"{URL}/{file}: the file {file[:80]!a} cannot be fetched: rename it, to at most 200 letters, digits"
    )
    assert refusal(f"{URL}/{file}").startswith(told)
    assert not cache_folder().exists()


@pytest.mark.parametrize("name", [f"memory://{'k' * 1100}", "memory://bucket/\x1b[31m", "memory://a\nb"])
def test_urls_that_no_manifest_can_name_are_not_opened(remote: Any, name: str) -> None:
    remote.pipe_file(f"{name.removeprefix('memory:/')}/model.safetensors", b"weights")
    told = f"{name[:80]!a} cannot be fetched: a name has 1 to 1024 characters, none of them a control"
    assert refusal(name).startswith(told)
    assert not cache_folder().exists()


@pytest.mark.parametrize("name", ["a" * 5000, f"models/{'a' * 300}", f"file:///{'a/' * 5000}"])
def test_paths_that_cannot_be(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    found = refusal(name)
    assert found.endswith(" cannot be read: File name too long")
    assert len(found) < 300


def test_paths_of_this_machine(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openai" / "clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("openai/clip").path == Path("openai/clip"), "a folder of that name is a path"
    assert resolve(f"file://{suite.pretrained}").path == suite.pretrained
    assert resolve(str(suite.pretrained)).origin is None


def test_what_a_place_refuses_is_one_sentence(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NO_ENTRY

    def full(*_: object, **__: object) -> None:
        raise FULL

    with monkeypatch.context() as patched:
        patched.setattr(type(remote), "ls", refuse)
        assert refusal(URL) == f"{URL} may not be read with the credentials found: Access Denied"
    monkeypatch.setattr("os.fsync", full)
    assert refusal(URL).startswith(f"{URL} does not fit: no space is left at ")


def test_no_weights(remote: Any) -> None:
    remote.rm_file("/bucket/models/base/model.safetensors")
    assert "has no safetensors but the pickle pytorch_model.bin" in refusal(URL)
