"""The model that an adapter says it changes: a folder here, the store's own, or another one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError, TaskError
from mass_serve.model_store.format.origin import Origin
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task
from tests.model_store.readers.test_adapters import save_adapter
from tests.models import Suite, make_model

NAME = "openai/clip-vit-base-patch32"
ORIGIN = Origin(name=f"hf:{NAME}@main", revision="1" * 40, files={})


def named(folder: Path, base: object) -> TaskInput:
    """A task that is an adapter of the base of this name."""
    config = save_adapter(folder, folder) / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base}))
    return TaskInput("small", folder)


def test_is_read_anew_where_it_is_a_folder(suite: Suite, store: Path, tmp_path: Path) -> None:
    adapter = named(tmp_path / "adapter", str(suite.pretrained))
    built = build(suite.pretrained, [adapter], tmp_path / "out").task("small")
    assert add_task(store, adapter).task("small").distance == built.distance


@pytest.mark.parametrize("name", [NAME, NAME.split("/")[1]])
def test_is_the_stores_encoder_where_the_store_says_so(name: str, suite: Suite, tmp_path: Path) -> None:
    adapter = named(tmp_path / "adapter", name)
    build(suite.pretrained, list(suite.tasks), tmp_path / "store", origin=ORIGIN)
    added = add_task(tmp_path / "store", adapter)
    options = BuildOptions(compression_ratio=added.manifest.compression_ratio)
    built = build(suite.pretrained, [adapter], tmp_path / "built", options, origin=ORIGIN)
    assert added.task("small").distance == built.task("small").distance
    files = [store.files.read_bytes(store.task("small").experts_file) for store in (added, built)]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "name", ["openai/clip-vit-base-patch16", "me/clip-vit-base-patch32", "patch32", "/gone", "", None, 7]
)
def test_another_one_is_refused(name: object, suite: Suite, tmp_path: Path) -> None:
    adapter = named(tmp_path / "adapter", name)
    sentence = re.escape(
        f"adapter_config.json: base_model_name_or_path is {name!r}, but the pretrained model is"
    )
    with pytest.raises(CheckpointError, match=f"task small: .*{sentence} hf:{NAME}@main: give the .*--force"):
        build(suite.pretrained, [adapter], tmp_path / "store", origin=ORIGIN)
    assert not (tmp_path / "store").exists()
    forced = build(suite.pretrained, [adapter], tmp_path / "store", BuildOptions(force=True), origin=ORIGIN)
    before = sorted((tmp_path / "store").rglob("*"))
    with pytest.raises(CheckpointError, match=sentence):
        add_task(tmp_path / "store", adapter, replace=True)
    assert sorted((tmp_path / "store").rglob("*")) == before
    added = add_task(tmp_path / "store", adapter, replace=True, force=True)
    assert added.task("small").distance == forced.task("small").distance


def test_one_that_may_be_the_stores_is_taken_by_force(suite: Suite, store: Path, tmp_path: Path) -> None:
    adapter = named(tmp_path / "adapter", NAME)
    with pytest.raises(
        CheckpointError, match=r"no folder here, and the store was built from .*--force if it is"
    ):
        add_task(store, adapter)
    added = add_task(store, adapter, force=True).task("small")
    assert added.distance == build(suite.pretrained, [adapter], tmp_path / "out").task("small").distance


def test_another_folder_is_measured_as_any_model_that_is_too_far(
    suite: Suite, store: Path, tmp_path: Path
) -> None:
    """By `build` as by `task add`: nothing but its base tells that an adapter is of another model."""
    make_model(seed=7).save_pretrained(tmp_path / "other")
    adapter = named(tmp_path / "adapter", str(tmp_path / "other"))
    too_far = r"task small: its distance from the pretrained model is 1\.\d+, usual .*--force"
    with pytest.raises(TaskError, match=too_far):
        build(suite.pretrained, [adapter], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(TaskError, match=too_far):
        add_task(store, adapter)
    forced = build(suite.pretrained, [adapter], tmp_path / "out", BuildOptions(force=True)).task("small")
    added = add_task(store, adapter, force=True).task("small")
    assert forced.distance == pytest.approx(added.distance, rel=1e-9)


def test_a_copy_of_the_pretrained_folder_is_the_same_base(suite: Suite, tmp_path: Path) -> None:
    shutil.copytree(suite.pretrained, tmp_path / "copy")
    of_copy = named(tmp_path / "of copy", str(tmp_path / "copy"))
    of_base = named(tmp_path / "of base", str(suite.pretrained))
    stores = [
        build(suite.pretrained, [adapter], tmp_path / out)
        for adapter, out in ((of_copy, "first"), (of_base, "second"))
    ]
    assert stores[0].manifest == stores[1].manifest
