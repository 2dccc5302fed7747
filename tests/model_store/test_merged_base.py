"""The merged base of a store, by whichever method it is merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.evaluation.variants import Variants
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.compacting import compact_store
from mass_serve.model_store.errors import ManifestError, StoreError
from mass_serve.model_store.exporting import merged_model
from mass_serve.model_store.merged_base import MERGEABLE, merged_base_choice
from mass_serve.model_store.revisions import add_task, remove_task
from mass_serve.model_store.store import Store
from tests.models import Suite


@pytest.fixture(scope="module")
def isotropic(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose merged base is that of Iso-C; read only."""
    place = tmp_path_factory.mktemp("isotropic") / "store"
    build(suite.pretrained, suite.tasks[:2], place, BuildOptions(merged_base="iso_c"))
    return place


@pytest.fixture
def store(isotropic: Path, tmp_path: Path) -> Path:
    return shutil.copytree(isotropic, tmp_path / "store")


def assert_merged_by_its_method(store: Store) -> None:
    found = store.load_merged_base()
    assert found is not None
    assert store.manifest.merged_base_method == "iso_c"
    expected = merged_model(store, MERGEABLE["iso_c"]).parameters
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name])


def test_it_is_stored_as_the_method_merges(suite: Suite, isotropic: Path, tmp_path: Path) -> None:
    opened = Store.open(isotropic)
    assert_merged_by_its_method(opened)
    assert json.loads((isotropic / "manifest.json").read_bytes())["format_version"] == 2
    usual = build(suite.pretrained, suite.tasks[:2], tmp_path / "s", BuildOptions(merged_base="tsv_m"))
    assert (usual.manifest.merged_base, usual.manifest.merged_base_method) == ("stored", None)
    ours, theirs = opened.load_merged_base(), usual.load_merged_base()
    assert ours is not None
    assert theirs is not None
    name = "blocks.0.mlp.fc1.weight"
    assert not torch.allclose(ours[name], theirs[name])


def test_every_change_of_the_tasks_merges_by_it_again(suite: Suite, store: Path) -> None:
    assert_merged_by_its_method(add_task(store, suite.tasks[2]))
    assert_merged_by_its_method(remove_task(store, "digits"))
    assert_merged_by_its_method(compact_store(store, "0.25/T"))
    assert Store.open(store).verify() == []


def test_the_papers_mode_runs_on_it(isotropic: Path) -> None:
    """Served in that mode, without a task, and evaluated beside another mode."""
    merged = Store.open(isotropic).load_merged_base()
    assert merged is not None
    device = torch.device("cpu")
    every, one = (
        load_store(str(isotropic), device, torch.float32, "paper", gone) for gone in ((), ("street",))
    )
    exact = load_store(str(isotropic), device, torch.float32, "exact")
    evaluated = Variants(exact, Execution.LOW_RANK, 1 << 30, merged).engine("paper")._loaded
    for found in (every, one, evaluated):
        assert found.first_pass.keys() == every.first_pass.keys()
        assert all(torch.equal(weight, merged[name]) for name, weight in found.first_pass.items())
    assert exact.first_pass_nbytes == 0


@pytest.mark.parametrize("method", MERGEABLE)
def test_every_method_can_be_named(method: str) -> None:
    form, name = merged_base_choice(method)
    assert form == "stored"
    assert name == (None if method == "tsv_m" else method)


def test_what_is_no_method_is_refused(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must be auto, stored, rebuilt or one of tsv_m, .*, not 'fisher'"):
        build(suite.pretrained, suite.tasks[:1], tmp_path / "s", BuildOptions(merged_base="fisher"))
    assert not (tmp_path / "s").exists()


def test_a_method_of_a_later_version_is_served_and_not_changed(suite: Suite, store: Path) -> None:
    content = json.loads((store / "manifest.json").read_bytes()) | {"merged_base_method": "later"}
    (store / "manifest.json").write_text(json.dumps(content))
    assert Store.open(store).load_merged_base() is not None
    with pytest.raises(StoreError, match=r"this version cannot merge by 'later'.* update mass-serve"):
        add_task(store, suite.tasks[2])
    assert Store.open(store).verify() == []


def test_a_manifest_has_the_file_of_a_method(store: Path) -> None:
    content = json.loads((store / "manifest.json").read_bytes())
    content["merged_base"] = "rebuilt"
    content["files"] = {path: found for path, found in content["files"].items() if "merged" not in path}
    (store / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="must be stored where it has a merged_base_method"):
        Store.open(store)


def test_a_text_store_of_token_tasks_alone_has_nothing_to_merge(tmp_path: Path) -> None:
    from tests import texts

    models = texts.finetuned(tmp_path, "Bert", (), of_tokens=("names",))
    store = build(
        models.pretrained, models.tasks, tmp_path / "s", BuildOptions(force=True, merged_base="iso_c")
    )
    assert (store.manifest.merged_base, store.manifest.merged_base_method) == ("rebuilt", "iso_c")
