"""Tasks added, replaced, removed, rolled back and pruned."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from mass_serve.merging import merged_parameter
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.compacting import compact_store
from mass_serve.model_store.errors import CheckpointError, IntegrityError, StoreError, TaskError
from mass_serve.model_store.format.block_formats import unpacked
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.revisions import (
    add_task,
    calibrate_store,
    prune_store,
    remove_task,
    rollback_task,
)
from mass_serve.model_store.store import Store
from tests.models import Suite, make_model


def names(store: Store) -> list[str]:
    return [task.name for task in store.manifest.tasks]


def assert_same_experts(left: Store, right: Store, name: str) -> None:
    ours, theirs = left.load_experts(name), right.load_experts(name)
    assert ours.dense_deltas.keys() == theirs.dense_deltas.keys()
    for parameter, found in ours.singular_vectors.items():
        vectors, expected = unpacked(found), unpacked(theirs.singular_vectors[parameter])
        assert torch.equal(vectors.u, expected.u)
        assert torch.equal(vectors.s, expected.s)
        assert torch.equal(vectors.vh, expected.vh)
    for parameter, delta in ours.dense_deltas.items():
        assert torch.equal(delta, theirs.dense_deltas[parameter])


def test_added_tasks_are_what_a_build_would_have_made(suite: Suite, store: Path, tmp_path: Path) -> None:
    """Which takes the same share of each task; see `test_compacting`."""
    added = add_task(store, suite.tasks[2])
    options = BuildOptions(format="bfloat16")  # as the store's
    together = build(suite.pretrained, suite.tasks, tmp_path / "together", options)
    assert names(added) == names(together) == ["digits", "street", "signs"]
    assert added.manifest.compression_ratio == 1 / 3
    for name in names(together):
        assert_same_experts(added, together, name)
    assert added.verify() == []


def test_every_write_has_its_own_store_revision(suite: Suite, store: Path) -> None:
    revisions = [Store.open(store).manifest.store_revision]
    revisions.append(add_task(store, suite.tasks[2]).manifest.store_revision)
    revisions.append(remove_task(store, "signs").manifest.store_revision)
    revisions.append(rollback_task(store, "signs").manifest.store_revision)
    assert len(set(revisions)) == 4


def test_adding_an_existing_task_needs_replace(suite: Suite, store: Path) -> None:
    before = (store / MANIFEST_FILE).read_bytes()
    with pytest.raises(TaskError, match="task digits exists already: pass --replace"):
        add_task(store, suite.tasks[0])
    assert (store / MANIFEST_FILE).read_bytes() == before


def test_replaced_revisions_come_back_one_after_the_other(suite: Suite, store: Path) -> None:
    first = Store.open(store).task("digits")
    other = dataclasses.replace(suite.tasks[2], name="digits")
    second = add_task(store, other, replace=True).task("digits")
    third = add_task(store, suite.tasks[0], replace=True).task("digits")
    assert len({first.revision, second.revision, third.revision}) == 3
    opened = Store.open(store)
    assert opened.manifest.history["digits"] == (first, second)
    assert names(opened) == ["digits", "street"]
    assert rollback_task(store, "digits").task("digits") == second
    back = rollback_task(store, "digits")
    assert back.task("digits") == first
    assert back.manifest.history == {}
    assert back.verify() == []
    with pytest.raises(TaskError, match="task digits has no earlier revision"):
        rollback_task(store, "digits")


def test_removed_tasks_come_back(store: Path) -> None:
    entry = Store.open(store).task("digits")
    removed = remove_task(store, "digits")
    assert names(removed) == ["street"]
    assert removed.manifest.history["digits"] == (entry,)
    assert names(rollback_task(store, "digits")) == ["street", "digits"]
    assert Store.open(store).task("digits") == entry


def test_the_last_task_stays(store: Path) -> None:
    remove_task(store, "digits")
    with pytest.raises(TaskError, match="task street is the only one"):
        remove_task(store, "street")
    assert names(Store.open(store)) == ["street"]


@pytest.mark.parametrize("change", [remove_task, rollback_task])
def test_unknown_tasks(store: Path, change: object) -> None:
    with pytest.raises(TaskError, match="birds"):
        change(store, "birds")  # type: ignore[operator]


def test_prune_keeps_exactly_what_the_manifest_names(suite: Suite, store: Path) -> None:
    compact_store(store, 1 / 2)  # by which a task that is added leaves the others as they are
    add_task(store, suite.tasks[2])
    remove_task(store, "digits")
    own_files = ("README.md", "tasks/notes.txt", "merged_base-backup.txt")
    for name in own_files:
        (store / name).write_text("a user's own file")
    leftover = store / "tasks" / "street" / "aaaaaaaaaaaa" / "experts.safetensors.partial"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    deleted = prune_store(store)
    pruned = Store.open(store)
    assert len(deleted) == 3
    assert pruned.manifest.history == {}
    expected = {".lock", "manifest.json", *own_files, *pruned.manifest.all_files()}
    assert set(pruned.files.list()) == expected
    assert not (store / "tasks" / "digits").exists()
    assert pruned.verify() == []
    assert prune_store(store) == []


def test_the_stored_merged_base_follows_the_tasks(suite: Suite, tmp_path: Path) -> None:
    build(suite.pretrained, suite.tasks[:2], tmp_path / "s", BuildOptions(merged_base="stored"))

    def assert_current(store: Store) -> None:
        tasks = [store.load_experts(name) for name in names(store)]
        found = store.load_merged_base()
        assert found is not None
        for name, pretrained in store.load_pretrained().items():
            changes = [task.change(name) for task in tasks]
            assert torch.equal(found[name], merged_parameter(pretrained, changes))

    before = Store.open(tmp_path / "s")
    assert_current(add_task(tmp_path / "s", suite.tasks[2]))
    assert_current(remove_task(tmp_path / "s", "digits"))
    assert_current(rollback_task(tmp_path / "s", "digits"))
    assert_current(before)  # a reader that opened the store earlier goes on
    prune_store(tmp_path / "s")
    assert_current(Store.open(tmp_path / "s"))


def test_fine_tuned_models_are_not_needed_again(suite: Suite, tmp_path: Path) -> None:
    models = Path(shutil.copytree(suite.pretrained.parent, tmp_path / "models"))
    tasks = [dataclasses.replace(task, checkpoint=models / task.name) for task in suite.tasks]
    options = BuildOptions(merged_base="stored")
    build(models / "pretrained", tasks[:2], tmp_path / "s", options)
    for gone in ("pretrained", "digits", "street"):
        shutil.rmtree(models / gone)
    assert add_task(tmp_path / "s", tasks[2]).verify() == []


def test_models_that_do_not_fit_change_nothing(suite: Suite, store: Path, tmp_path: Path) -> None:
    make_model(hidden_size=16).save_pretrained(tmp_path / "signs")
    files = sorted(store.rglob("*"))
    with pytest.raises(CheckpointError, match="has width 16, the pretrained model 32"):
        add_task(store, dataclasses.replace(suite.tasks[2], checkpoint=tmp_path / "signs"))
    assert sorted(store.rglob("*")) == files


def test_damaged_pretrained_weights_are_not_built_upon(suite: Suite, store: Path) -> None:
    path = store / "pretrained.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(IntegrityError, match=r"pretrained\.safetensors .* is damaged"):
        add_task(store, suite.tasks[2])


def test_a_store_that_outgrew_rebuilding_gets_its_merged_base_stored(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "merged"
    built = build(suite.pretrained, suite.tasks[:2], store, BuildOptions(first_pass="merged_base"))
    assert built.manifest.merged_base == "rebuilt"
    monkeypatch.setattr("mass_serve.model_store.changing.is_slow_to_rebuild", lambda tasks: len(tasks) > 2)
    assert add_task(store, suite.tasks[2]).manifest.merged_base == "stored"


TENSORS = {
    "means": torch.arange(12.0).view(3, 2, 2),
    "covariance": torch.eye(4, dtype=torch.float64).view(2, 2, 2, 2),
    "images": torch.ones(3, dtype=torch.float64),
    "owner": torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64),
}


def calibrated(store: Path, unrouted_below: float = 0.1) -> Store:
    return calibrate_store(Store.open(store), TENSORS, ["digits", "street"], 700, unrouted_below)


def test_a_calibration_is_a_revision_of_its_own(store: Path) -> None:
    before = Store.open(store)
    after = calibrated(store)
    assert after.manifest.store_revision != before.manifest.store_revision
    assert after.manifest.tasks == before.manifest.tasks
    assert after.manifest.router == before.manifest.router.model_copy(update={"unrouted_below": 0.1})
    assert after.manifest.calibrated_tasks(["digits", "street"]) == (0, 1)
    assert after.manifest.calibrated_tasks(["street"]) == (1,)
    again = Store.open(store)
    loaded = again.load_calibration()
    assert loaded is not None
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    assert again.verify() == []
    assert before.load_calibration() is None


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        TENSORS | {"other": torch.ones(1)},
        {name: tensor for name, tensor in TENSORS.items() if name != "owner"},
        TENSORS | {"images": torch.ones(2)},
        TENSORS | {"covariance": torch.eye(4)},
        TENSORS | {"means": torch.ones(3)},
    ],
)
def test_other_tensors_are_no_calibration(store: Path, tensors: dict[str, torch.Tensor]) -> None:
    before = (store / MANIFEST_FILE).read_bytes()
    with pytest.raises(ValueError, match="no calibration of 2 tasks"):
        calibrate_store(Store.open(store), tensors, ["digits", "street"], 700, 0.1)
    assert (store / MANIFEST_FILE).read_bytes() == before


def test_a_second_calibration_replaces_the_first(store: Path) -> None:
    first, second = calibrated(store), calibrated(store, unrouted_below=0.2)
    assert first.manifest.calibration is not None
    assert first.manifest.calibration.file not in second.manifest.files
    assert second.manifest.router.unrouted_below == 0.2
    assert prune_store(store) == [first.manifest.calibration.file]
    assert Store.open(store).verify() == []


def test_a_calibration_is_used_for_its_tasks_alone(suite: Suite, store: Path) -> None:
    compact_store(store, 1 / 2)  # by which tasks that are added leave the others as they are
    calibrated(store)
    three = add_task(store, suite.tasks[2]).manifest
    assert three.calibrated_tasks(["digits", "street", "signs"]) is None
    assert three.calibrated_tasks(["digits", "street"]) == (0, 1)
    two = remove_task(store, "signs").manifest
    assert two.calibrated_tasks(["digits", "street"]) == (0, 1)
    other = add_task(store, dataclasses.replace(suite.tasks[2], name="digits"), replace=True).manifest
    assert other.calibrated_tasks(["digits", "street"]) is None
    assert rollback_task(store, "digits").manifest.calibrated_tasks(["digits", "street"]) == (0, 1)
    assert Store.open(store).verify() == []


def test_tasks_are_found_in_a_calibration_that_has_them_in_another_order(store: Path) -> None:
    names = ["street", "digits"]
    manifest = calibrate_store(Store.open(store), TENSORS, names, 700, 0.1).manifest
    assert manifest.calibrated_tasks(names) == (1, 0)
    remove_task(store, "digits")
    back = rollback_task(store, "digits").manifest
    assert [task.name for task in back.tasks] == names
    assert back.calibrated_tasks(names) == (0, 1)


def test_on_the_merged_base_every_task_has_a_part_in_the_evidence(suite: Suite, tmp_path: Path) -> None:
    options = BuildOptions(first_pass="merged_base", merged_base="stored")
    store = tmp_path / "merged"
    build(suite.pretrained, suite.tasks[:2], store, options)
    manifest = calibrated(store).manifest
    assert manifest.calibrated_tasks(["digits", "street"]) == (0, 1)
    assert manifest.calibrated_tasks(["street"]) is None
    assert manifest.merged_base_file is not None
    assert Store.open(store).load_merged_base() is not None
    assert remove_task(store, "street").manifest.calibrated_tasks(["digits"]) is None


def test_a_store_that_changed_meanwhile_is_not_calibrated(suite: Suite, store: Path) -> None:
    opened = Store.open(store)
    changed = add_task(store, suite.tasks[2])
    with pytest.raises(StoreError, match="was changed meanwhile: calibrate it again"):
        calibrate_store(opened, TENSORS, ["digits", "street"], 700, 0.1)
    assert Store.open(store).manifest == changed.manifest
    assert not [path for path in store.iterdir() if path.name.startswith("calibration")]
