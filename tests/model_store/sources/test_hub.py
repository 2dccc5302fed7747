"""Models of the hub, from a server on loopback that speaks as the real one does."""

from __future__ import annotations

import errno
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.sources import resolve
from tests.model_store.sources.fake_hub import FakeHub, Repository, running_hub
from tests.models import Suite

NAME = "hf:org/model"
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(suite: Suite, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub, which has the pretrained model of the suite and much that nobody needs."""
    folder = cache.parent / "model"
    folder.mkdir()
    for path in suite.pretrained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name in (
        "README.md",
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "model.fp16.safetensors",
    ):
        (folder / name).write_bytes(b"not needed")
    (folder / "preprocessor_config.json").write_text("{}")
    with running_hub() as hub:
        hub.repositories["org/model"] = Repository(folder, revisions=("main", "v1.0", "refs/pr/3"))
        constants = huggingface_hub.constants
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache.parent / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10)  # so that of a small file a part arrives
        monkeypatch.setattr("time.sleep", lambda _: None)  # the library waits before it tries again
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        yield hub
    huggingface_hub.close_session()


def test_only_what_a_reader_needs_is_fetched(hub: FakeHub, suite: Suite) -> None:
    seen = []
    found = resolve(NAME, progress=lambda *call: seen.append(call))
    ours, theirs = Checkpoint.open(found.path), Checkpoint.open(suite.pretrained)
    assert ours.architecture == theirs.architecture
    assert sorted(hub.fetched()) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert ("fetching hf:org/model: model.safetensors", 1, 1) in seen, "the progress of bytes, in megabytes"
    weights = (suite.pretrained / "model.safetensors").read_bytes()
    assert found.origin is not None
    assert (found.origin.name, found.origin.revision) == (NAME, "1" * 40)
    assert found.origin.files["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert found.origin.files.keys() == {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_what_says_how_a_text_becomes_one_vector_lies_in_a_folder(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub.repositories["org/model"].folder
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "1_Pooling" / "README.md").write_text("not needed")
    found = resolve(NAME)
    assert found.origin is not None
    assert {"modules.json", "1_Pooling/config.json"} < found.origin.files.keys()
    assert "1_Pooling/README.md" not in found.origin.files
    assert (found.path / "1_Pooling" / "config.json").read_text() == '{"pooling_mode_cls_token": true}'
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve(NAME) == found, "offline it is known to be in the cache"


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/3", "1" * 40])
def test_revisions(hub: FakeHub, revision: str) -> None:
    found = resolve(f"{NAME}@{revision}")
    assert found.origin is not None
    assert (found.origin.name, found.origin.revision) == (f"{NAME}@{revision}", "1" * 40)
    assert all("resolve/main" not in path for _, path, _ in hub.asked)


def test_what_is_in_the_cache_is_not_fetched_again(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve(NAME)
    hub.asked.clear()
    assert resolve(NAME) == first
    assert hub.fetched() == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert resolve(NAME) == first
    assert hub.asked == [], "offline nobody is asked"


def test_a_new_revision_is_fetched(hub: FakeHub) -> None:
    first = resolve(NAME)
    hub.repositories["org/model"].commit = "2" * 40
    (hub.repositories["org/model"].folder / "preprocessor_config.json").write_text("{ }")
    hub.asked.clear()
    second = resolve(NAME)
    assert second.path != first.path
    assert hub.fetched() == ["preprocessor_config.json"], "what has not changed is in the cache"


def test_a_transfer_that_breaks_off_goes_on_from_there(hub: FakeHub, suite: Suite) -> None:
    hub.breaks = 2
    found = resolve(NAME)
    Checkpoint.open(found.path).parameter("class_embedding")
    size = (suite.pretrained / "model.safetensors").stat().st_size
    ranges = [span for method, path, span in hub.asked if method == "GET" and path.startswith("/blobs/")]
    assert ranges == ["", f"bytes={size // 2}-", f"bytes={size // 2 + (size - size // 2) // 2}-"]


def test_pickles_are_fetched_only_where_they_are_allowed(hub: FakeHub) -> None:
    folder = hub.repositories["org/model"].folder
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"^hf:org/model has no safetensors but the pickle pytorch_model"
    ):
        resolve(NAME)
    assert hub.fetched() == []
    assert "pytorch_model.bin" in [path.name for path in resolve(NAME, allow_pickle=True).path.iterdir()]


def test_shards_and_heads(hub: FakeHub) -> None:
    folder = hub.repositories["org/model"].folder
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    for name in ("model.safetensors.index.json", "model-00002-of-00002.safetensors", "head.safetensors"):
        (folder / name).write_bytes(name.encode())
    found = resolve(NAME)
    assert found.origin is not None
    assert sorted(name for name in found.origin.files if name.endswith("safetensors")) == [
        "head.safetensors",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_repository_without_weights(hub: FakeHub) -> None:
    for path in hub.repositories["org/model"].folder.iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors or .*: found \.gitattributes$"):
        resolve(NAME)


def refusal(name: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(name)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "name", ["hf:model", "hf:", "hf:a/b/c", "hf:org/model@", "hf:org/mo del", "hf:a/b@x y"]
)
def test_names_that_cannot_be(name: str) -> None:
    assert refusal(name) == f"{name!r} must have the form hf:org/model or hf:org/model@revision"


@pytest.mark.parametrize(
    "name",
    [
        *("hf:../..", "hf:org/..", "hf:./model", "hf:org/.", "hf:../model@main"),
        *("../../x", "/etc/x", "a/../b", "a//b", "a/", ".", "..", "refs/./x"),
    ],
)
def test_names_that_would_leave_the_cache(hub: FakeHub, cache: Path, name: str) -> None:
    name = name if name.startswith("hf:") else f"{NAME}@{name}"
    hub.repositories["org/model"].revisions = (name.rpartition("@")[2],)
    assert refusal(name) == f"{name!r}: no part of a name or revision may be empty, '.' or '..'"
    assert hub.asked == []
    assert not cache.exists()


def test_a_name_that_is_too_long_for_an_origin(hub: FakeHub) -> None:
    told = "cannot be fetched: a name has 1 to 1024 characters, none of them a control character"
    assert told in refusal(f"{NAME}@{'a' * 2000}")
    assert hub.asked == []


def test_unknown_repository(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hf:org/other was not found on the hub: check the name; if it is private" in refusal(
        "hf:org/other"
    )
    hub.tokens.add("hf_good")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert "hf:org/other was not found on the hub" in refusal("hf:org/other")


def test_unknown_revision(hub: FakeHub) -> None:
    assert "v9" not in hub.repositories["org/model"].revisions
    assert refusal(f"{NAME}@v9") == f"{NAME}@v9 was not found: org/model has no branch, tag or commit 'v9'"


def test_a_private_model_needs_a_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/model"].private = True
    assert "set HF_TOKEN to a token that may read it" in refusal(NAME)
    hub.tokens |= {"hf_other", "hf_good"}
    hub.members.add("hf_good")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "set HF_TOKEN to a token that may read it" in refusal(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert resolve(NAME).path.is_dir()


def test_a_gated_model_says_where_its_terms_are(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/model"].gated = True
    terms = f"is gated: accept its terms at {hub.url}/org/model, and set HF_TOKEN to a token of that account"
    assert terms in refusal(NAME)
    hub.tokens |= {"hf_other"}
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert terms in refusal(NAME)


def test_a_revoked_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_revoked")
    assert "the hub refuses the token, which may be revoked" in refusal(NAME), "also with a copy in the cache"
    assert hub.tokens == set()


def test_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    template = nobody + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nobody)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert f"cannot be fetched from {nobody} and is not in the cache: " in refusal(NAME)
    assert "run the same command again" in refusal(NAME)
    assert hub.asked == []


def test_offline_without_a_copy(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refusal(NAME) == f"{NAME} is not in the cache, and HF_HUB_OFFLINE is set: run once without it"
    assert hub.asked == []


def test_offline_with_half_a_copy(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(NAME)
    (found.path / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert refusal(NAME).startswith(f"{NAME} has no model.safetensors or ")
    assert hub.asked == []


def test_a_cache_that_holds_other_bytes(hub: FakeHub) -> None:
    hub.wrong_bytes = True
    text = refusal(NAME)
    assert text.startswith(f"{NAME}: model.safetensors in the cache is not what the hub has")
    damaged = Path(text.partition("delete ")[2].partition(" and run")[0])
    damaged.unlink()
    hub.wrong_bytes = False
    found = resolve(NAME)
    (found.path / "config.json").resolve().write_text("{}")
    assert refusal(NAME).startswith(f"{NAME}: config.json in the cache is not what the hub has")


def test_a_full_disk(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise FULL

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    assert refusal(NAME) == f"{NAME} does not fit: no space is left at {cache}; set HF_HOME to another disk"
    assert hub.fetched() == []
    assert not list(cache.rglob("*.incomplete"))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refusal(NAME) == f"{NAME} needs huggingface_hub: pip install 'mass-serve[hub]'"
