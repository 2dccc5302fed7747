"""What a store keeps of drawn inputs is of its own weights, and what loading it would measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from mass_serve.engine import Engine
from mass_serve.engine.drawn_energies import kept_energies
from mass_serve.engine.evidence_search import EvidenceSearch
from mass_serve.engine.loading import load_store
from mass_serve.engine.measuring import measured, unknown_measures
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.converting import convert_store
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task
from mass_serve.model_store.store import Store
from mass_serve.router import DrawnEnergies
from tests.model_store.readers.test_adapters import save_adapter
from tests.models import Suite
from tests.tiny import pixels

OPTIONS = BuildOptions(mode="exact", rank=4)


def kept_by(store: Store, *without: str) -> DrawnEnergies | None:
    url, device = store.files.url, torch.device("cpu")
    return kept_energies(load_store(url, device, torch.float32, without=without))


def rewritten(store: Store, **update: object) -> Store:
    """The store with other values in the entries of all its tasks."""
    tasks = tuple(TaskEntry.model_validate(dict(task) | update) for task in store.manifest.tasks)
    store.files.write_bytes(MANIFEST_FILE, store.manifest.model_copy(update={"tasks": tasks}).to_bytes())
    return Store.open(store.files.url)


@pytest.fixture
def with_adapter(suite: Suite, tmp_path: Path) -> list[TaskInput]:
    return [*suite.tasks, TaskInput("adapter", save_adapter(tmp_path / "adapter", suite.pretrained))]


@pytest.mark.parametrize("with_profiles", [False, True])
def test_answers_have_the_bits_that_measuring_at_load_gives(
    suite: Suite, with_adapter: list[TaskInput], tmp_path: Path, *, with_profiles: bool
) -> None:
    tasks = with_adapter if with_profiles else suite.tasks
    store = build(suite.pretrained, tasks, tmp_path / "store", OPTIONS, measure=measured)
    entries = [task.drawn_energies for task in store.manifest.tasks]
    assert [bool(one and one.profiles) for one in entries] == [with_profiles] * len(tasks)
    images = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels(6)]
    kept = Engine.load(store.files.url, dtype="float32").classify(images)
    at_load = Engine.load(rewritten(store, drawn_energies=None).files.url, dtype="float32").classify(images)
    for one, other in zip(kept, at_load, strict=True):
        assert torch.equal(one.logits, other.logits)
        assert (one.coefficients, one.familiarity) == (other.coefficients, other.familiarity)
    assert len({one.familiarity for one in kept}) > 1


def test_nothing_is_measured_at_load_of_a_store_that_keeps_it(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = build(suite.pretrained, suite.tasks, tmp_path / "store", OPTIONS, measure=measured)
    monkeypatch.delattr(EvidenceSearch, "_measured_energies")
    for dtype in ("float32", "bfloat16"):
        Engine.load(store.files.url, dtype=dtype)
    rewritten(store, drawn_energies=None)
    with pytest.raises(AttributeError):
        Engine.load(store.files.url, dtype="float32")


def test_a_record_of_other_weights_does_not_count(suite: Suite, tmp_path: Path) -> None:
    store = build(suite.pretrained, suite.tasks, tmp_path / "store", OPTIONS, measure=measured)
    assert kept_by(store) is not None
    assert kept_by(rewritten(store, drawn_energies=store.manifest.tasks[0].drawn_energies)) is None


@pytest.mark.parametrize("key", ["backbone", "preprocessing"])
def test_a_record_of_another_encoder_does_not_count(suite: Suite, tmp_path: Path, key: str) -> None:
    store = build(suite.pretrained, suite.tasks, tmp_path / "store", OPTIONS, measure=measured)
    assert kept_by(store) is not None
    manifest = json.loads(store.files.read_bytes(MANIFEST_FILE))
    if key == "backbone":
        manifest["backbone"]["block"]["activation"] = "gelu"
    else:
        manifest["preprocessing"]["mean"] = [0.1, 0.2, 0.3]
    store.files.write_bytes(MANIFEST_FILE, json.dumps(manifest).encode())
    assert kept_by(Store.open(store.files.url)) is None


def test_a_record_without_the_profiles_that_an_adapter_asks_for_does_not_count(
    suite: Suite, with_adapter: list[TaskInput], tmp_path: Path
) -> None:
    store = build(suite.pretrained, with_adapter, tmp_path / "store", OPTIONS, measure=measured)
    assert kept_by(store) is not None
    manifest = json.loads(store.files.read_bytes(MANIFEST_FILE))
    del manifest["tasks"][0]["drawn_energies"]["profiles"]
    store.files.write_bytes(MANIFEST_FILE, json.dumps(manifest).encode())
    assert kept_by(Store.open(store.files.url)) is None


def test_a_record_of_other_linears_does_not_count(suite: Suite, tmp_path: Path) -> None:
    store = build(suite.pretrained, suite.tasks[:1], tmp_path / "store", OPTIONS, measure=measured)
    spec = store.manifest.tasks[0].drawn_energies
    assert spec is not None
    assert kept_by(store) is not None
    shorter = spec.model_copy(update={"shares": spec.shares[1:]})
    assert kept_by(rewritten(store, drawn_energies=shorter)) is None


def test_an_adapter_changes_what_the_others_are_measured_with(
    suite: Suite, with_adapter: list[TaskInput], tmp_path: Path
) -> None:
    store = build(suite.pretrained, suite.tasks, tmp_path / "store", OPTIONS, measure=measured)
    url, before = store.files.url, kept_by(store)
    unmeasured = add_task(url, with_adapter[-1])
    assert kept_by(unmeasured) is None
    assert kept_by(unmeasured, "adapter") is not None, "without it, all is as before"
    added = add_task(url, with_adapter[-1], replace=True, measure=unknown_measures)
    found = kept_by(added)
    assert before is not None
    assert found is not None
    assert found.shares.shape[1] == before.shares.shape[1] + 1


def test_tasks_in_another_format_are_measured_again(suite: Suite, tmp_path: Path) -> None:
    store = build(suite.pretrained, suite.tasks, tmp_path / "store", OPTIONS, measure=measured)
    assert kept_by(convert_store(store.files.url, "int8", measure=unknown_measures)) is not None
    again = convert_store(store.files.url, "bfloat16")
    assert [task.drawn_energies for task in again.manifest.tasks] == [None] * len(suite.tasks)


def test_on_a_merged_base_nothing_is_kept(suite: Suite, tmp_path: Path) -> None:
    options = BuildOptions(mode="exact", first_pass="merged_base")
    store = build(suite.pretrained, suite.tasks, tmp_path / "store", options, measure=measured)
    assert [task.drawn_energies for task in store.manifest.tasks] == [None] * len(suite.tasks)
