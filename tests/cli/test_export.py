"""`mass-serve export`: what users type, what they get, and what is refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mass_serve.cli.app import app
from mass_serve.engine import Engine
from mass_serve.merging.methods import METHODS, TALL_MASKS
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.store import Store
from tests import texts
from tests.model_store.writers.exports import logits_of, pictures, served_logits
from tests.models import Suite, make_suite


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """A pretrained model and three fine-tuned ones."""
    return make_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def store(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of them."""
    folder = tmp_path_factory.mktemp("stores") / "store"
    return build(suite.pretrained, suite.tasks, folder, BuildOptions(force=True))


def _export(store: Store, *given: object) -> Any:
    return CliRunner().invoke(app, ["export", store.files.url, *map(str, given)])


def test_a_task_comes_out_as_it_is_served(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "street"
    result = _export(store, "--task", "street", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "folder": str(out),
        "class": "CLIPVisionModelWithProjection",
        "head_file": True,
    }
    logits = logits_of(out, "CLIPVisionModelWithProjection", pictures())
    torch.testing.assert_close(logits, served_logits(store, "street", pictures()), atol=2e-4, rtol=1e-5)
    umask = os.umask(0o022)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["street"]


@pytest.mark.parametrize(
    "method", [method for method in METHODS if method is not TALL_MASKS], ids=lambda method: method.name
)
def test_every_method_gives_one_model(method: Any, store: Store, tmp_path: Path) -> None:
    result = _export(store, "--merged", method.name, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    merged, own = Checkpoint.open(tmp_path / "out"), store.load_pretrained()
    assert merged.architecture == store.manifest.backbone
    assert any(not torch.equal(merged.parameter(name), before) for name, before in own.items())
    assert not (tmp_path / "out" / "head.safetensors").exists()


def test_the_merged_base_is_that_of_the_engine(store: Store, tmp_path: Path) -> None:
    result = _export(store, "--merged", "tsv_m", "--head", "signs", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    bank = Engine.load(store.files.url, device="cpu").bank
    checkpoint = Checkpoint.open(tmp_path / "out")
    for name in store.manifest.backbone.parameter_shapes():
        torch.testing.assert_close(
            checkpoint.parameter(name), bank.merged(name, range(3)), atol=1e-5, rtol=1e-5
        )
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == list(store.task("signs").labels)


def test_a_coefficient_is_how_far_to_go(store: Store, tmp_path: Path) -> None:
    for coefficient in (0.0, 0.5, 1.0):
        given = ("--merged", "task_arithmetic", "--coefficient", coefficient)
        assert _export(store, *given, "--out", tmp_path / str(coefficient)).exit_code == 0
    none, half, whole = (Checkpoint.open(tmp_path / str(c)) for c in (0.0, 0.5, 1.0))
    for name, before in store.load_pretrained().items():
        assert torch.equal(none.parameter(name), before)
        middle = (none.parameter(name) + whole.parameter(name)) / 2
        torch.testing.assert_close(half.parameter(name), middle, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((), "give either --task NAME or --merged METHOD"),
        (("--task", "street", "--merged", "tsv_m"), "give either --task NAME or --merged METHOD"),
        (("--task", "street", "--head", "signs"), "--head and --coefficient are of --merged"),
        (("--task", "street", "--coefficient", "1"), "--head and --coefficient are of --merged"),
        (("--task", "cars"), "there is no task 'cars'"),
        (("--merged", "tsv_m", "--head", "cars"), "there is no task 'cars'"),
        (("--merged", "tall_masks"), "--merged 'tall_masks' must be one of tsv_m, "),
        (("--merged", "tsv_m", "--coefficient", "nan"), "--coefficient must be a finite number, found nan"),
        (("--merged", "tsv_m", "--coefficient", "inf"), "--coefficient must be a finite number, found inf"),
        (("--merged", "tsv_m", "--coefficient", "1e38"), "the merged weights overflow: give a smaller one"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    given: tuple[str, ...], sentence: str, store: Store, tmp_path: Path
) -> None:
    result = _export(store, *given, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert sentence in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["folder", "file", "dangling link"])
def test_nothing_is_overwritten(taken: str, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if taken == "folder":
        out.mkdir()
        (out / "mine").write_text("kept")
    elif taken == "file":
        out.write_text("kept")
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    result = _export(store, "--task", "street", "--out", out)
    assert result.exit_code == 2
    assert "exists and is not an empty folder: choose another, or remove it" in " ".join(
        result.output.split()
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_an_empty_folder_is_taken(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert _export(store, "--task", "street", "--out", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_folder_that_cannot_be_made_is_told(store: Store, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    result = _export(store, "--task", "street", "--out", tmp_path / "loop" / "out")
    assert result.exit_code == 2
    assert "cannot be written" in " ".join(result.output.split())


def test_a_folder_that_cannot_be_looked_into_is_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()

    def locked(_: Path) -> Any:  # as for a user who is not root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", locked)
    result = _export(store, "--task", "street", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "Permission denied" in " ".join(result.output.split())


def test_a_full_disk_leaves_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LocalFiles.writing

    def full(files: LocalFiles, path: str) -> Any:
        if path == "model.safetensors":
            raise OSError(28, "No space left on device")
        return whole(files, path)

    monkeypatch.setattr(LocalFiles, "writing", full)
    result = _export(store, "--task", "street", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "no space is left" in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_fills_the_folder_meanwhile_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out", LocalFiles.writing

    def filling(files: LocalFiles, path: str) -> Any:
        out.mkdir(exist_ok=True)
        (out / "theirs").write_text("kept")
        return whole(files, path)

    monkeypatch.setattr(LocalFiles, "writing", filling)
    result = _export(store, "--task", "street", "--out", out)
    assert result.exit_code == 2
    assert "is not an empty folder" in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["theirs"]


def test_tasks_that_classify_tokens_have_no_part_in_a_merged_model(tmp_path: Path) -> None:
    made = texts.finetuned(tmp_path, "Bert", names=("guard", "domain"), of_tokens=("people",))
    store = build(made.pretrained, made.tasks, tmp_path / "store", BuildOptions(force=True))
    refused = _export(store, "--merged", "tsv_m", "--head", "people", "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "the task people classifies tokens, and has no part in the merged model" in refused.output
    result = _export(store, "--merged", "tsv_m", "--head", "guard", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "BertForSequenceClassification" in result.output
