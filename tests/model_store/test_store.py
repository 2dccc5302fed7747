"""Reading a store: what it gives back, and that no damaged byte is ever used."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mass_serve.merging import DenseDelta
from mass_serve.model_store.errors import IntegrityError, StoreError, TaskError
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.storage.regular_files import RegularFile
from mass_serve.model_store.store import Store
from tests.models import Suite


def test_pretrained_is_the_checkpoint(built: Path, suite: Suite) -> None:
    checkpoint = Checkpoint.open(suite.pretrained)
    loaded = Store.open(built).load_pretrained()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, checkpoint.parameter(name)), name


def test_experts_are_the_best_approximation_of_the_task_vector(built: Path, suite: Suite) -> None:
    pretrained = Checkpoint.open(suite.pretrained)
    finetuned = Checkpoint.open(suite.tasks[0].checkpoint)
    experts = Store.open(built).load_experts("digits")
    for name in Store.open(built).load_pretrained():
        delta = finetuned.parameter(name) - pretrained.parameter(name)
        change = experts.change(name)
        if isinstance(change, DenseDelta):
            assert torch.equal(change.values, delta), name
            continue
        u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
        rank = max(1, min(delta.shape) // 2)
        assert change.rank == rank
        assert (change.u.dtype, change.s.dtype, change.vh.dtype) == (
            torch.bfloat16,
            torch.float32,
            torch.bfloat16,
        )
        best = (u[:, :rank] * s[:rank]) @ vh[:rank]
        found = change.u.float() @ change.s.diag() @ change.vh.float()
        assert float((found - best).norm() / best.norm()) < 0.01, name


def test_heads_and_labels(built: Path, suite: Suite) -> None:
    store = Store.open(built)
    cosine, linear = store.load_head("digits"), store.load_head("street")
    given = load_file(suite.tasks[1].checkpoint / "head.safetensors")
    assert (cosine.kind, float(cosine.tensors["logit_scale"])) == ("cosine", 100.0)
    assert linear.kind == "linear"
    assert linear.tensors.keys() == given.keys()
    assert all(torch.equal(linear.tensors[name], given[name]) for name in given)
    assert store.task("digits").labels == ("class 0", "class 1", "class 2", "class 3")


def test_unknown_tasks_are_named(built: Path) -> None:
    with pytest.raises(TaskError, match=r"no task 'birds' .* it has digits, street"):
        Store.open(built).load_experts("birds")


def load_everything(store: Store) -> None:
    store.load_pretrained()
    store.load_merged_base()
    for task in store.manifest.tasks:
        store.load_experts(task.name)
        store.load_head(task.name)


def stored_files(root: Path) -> list[str]:
    return sorted(Store.open(root).manifest.all_files())


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "remove", "folder"])
def test_every_damaged_file_is_named(store: Path, index: int, damage: str) -> None:
    path = stored_files(store)[index]
    target = store / path
    content = target.read_bytes()
    target.unlink()
    if damage == "flip":
        target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        target.write_bytes(content[:-1])
    elif damage == "extend":
        target.write_bytes(content + b"\0")
    elif damage == "folder":
        target.mkdir()
    opened = Store.open(store)
    with pytest.raises(IntegrityError, match=path):
        load_everything(opened)
    damaged = opened.verify()
    assert len(damaged) == 1
    assert path in damaged[0]


def test_a_file_that_cannot_be_read_is_named(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    opened = Store.open(built)
    monkeypatch.setattr(RegularFile, "read_into", fail)
    with pytest.raises(
        IntegrityError, match=r"pretrained\.safetensors .* cannot be read: Input/output error"
    ):
        opened.load_pretrained()


def replace_with_matching_hash(root: Path, path: str, content: bytes) -> None:
    """A hostile store: its manifest vouches for whatever it holds."""
    manifest = json.loads((root / MANIFEST_FILE).read_text())
    for files in [manifest["files"], *(task["files"] for task in manifest["tasks"])]:
        if path in files:
            files[path] = hashlib.sha256(content).hexdigest()
    (root / MANIFEST_FILE).write_text(json.dumps(manifest))
    (root / path).write_bytes(content)


HEADER_BOMB = (2**62).to_bytes(8, "little") + b"{}"
HUGE_TENSOR_HEADER = b'{"weight":{"dtype":"F32","shape":[1000000000,1000000],"data_offsets":[0,8]}}'
HUGE_TENSOR = len(HUGE_TENSOR_HEADER).to_bytes(8, "little") + HUGE_TENSOR_HEADER + b"\0" * 8


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("content", [b"", HEADER_BOMB, HUGE_TENSOR, b"\x80\x04pickle"])
def test_hostile_files_with_a_right_hash_are_refused(store: Path, index: int, content: bytes) -> None:
    path = stored_files(store)[index]
    replace_with_matching_hash(store, path, content)
    with pytest.raises(IntegrityError, match=path):
        load_everything(Store.open(store))


@pytest.mark.parametrize(
    ("file", "key", "sentence"),
    [
        ("pretrained", "blocks.0.mlp.fc1.weight", r"blocks\.0\.mlp\.fc1\.weight has shape \[1, 1\]"),
        ("experts", "blocks.0.mlp.fc1.weight.vh", r"blocks\.0\.mlp\.fc1\.weight\.vh has shape \[1, 1\]"),
        ("experts", "surprise", "surprise is missing or unexpected"),
        ("head", "weight", r"holds a cosine head \[1, 1\], the manifest describes a cosine head \[4, 16\]"),
    ],
)
def test_shapes_that_do_not_fit_the_manifest(store: Path, file: str, key: str, sentence: str) -> None:
    path = next(path for path in stored_files(store) if f"{file}.safetensors" in path)
    tensors = load_file(store / path)
    tensors[key] = torch.ones(1, 1)
    save_file(tensors, store / path)
    replace_with_matching_hash(store, path, (store / path).read_bytes())
    with pytest.raises(IntegrityError, match=sentence):
        load_everything(Store.open(store))


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StoreError, match="there is no store at"):
        Store.open(tmp_path / "store")


def test_opening_writes_nothing(store: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    load_everything(Store.open(store))
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
