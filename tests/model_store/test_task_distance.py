"""A task's distance from its base and the energy that its blocks keep: measured, stored, held to limits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.distance_warning import distance_warning
from mass_serve.model_store.errors import TaskError
from mass_serve.model_store.format.factoring import factored_shapes
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.revisions import add_task, remove_task
from mass_serve.model_store.store import Store
from tests.models import Suite, make_model, save_head


def changed_by(suite: Suite, folder: Path, share: float) -> TaskInput:
    """A task whose every weight is the pretrained one times `1 + share`: that is its distance."""
    shutil.copytree(suite.pretrained, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({key: value * (1 + share) for key, value in weights.items()}, folder / "model.safetensors")
    save_head(folder, 4, 16)
    return TaskInput("moved", folder)


@pytest.fixture
def stranger(tmp_path: Path) -> TaskInput:
    """A model of the same sizes that was trained apart."""
    make_model(seed=5).save_pretrained(tmp_path / "stranger")
    save_head(tmp_path / "stranger", 4, 16)
    return TaskInput("stranger", tmp_path / "stranger")


def test_what_is_stored_is_what_the_models_say(suite: Suite, tmp_path: Path) -> None:
    store = build(suite.pretrained, suite.tasks[:2], tmp_path / "out", BuildOptions(block_dtype="float32"))
    base = Checkpoint.open(suite.pretrained)
    factored = factored_shapes(base.architecture, "factored")
    for task in suite.tasks[:2]:
        entry, finetuned = store.task(task.name), Checkpoint.open(task.checkpoint)
        names = base.architecture.parameter_shapes()
        change = {name: (finetuned.parameter(name) - base.parameter(name)).double() for name in names}
        size = sum(float(base.parameter(name).double().square().sum()) for name in names)
        assert entry.distance == pytest.approx((sum(map(energy, change.values())) / size) ** 0.5, rel=1e-5)
        ranks = store.layout.ranks_of(entry)
        kept = sum(energy(torch.linalg.svdvals(change[name])[: ranks[name]]) for name in factored)
        assert entry.energy_kept == pytest.approx(
            kept / sum(energy(change[name]) for name in factored), rel=1e-4
        )
    assert json.loads((tmp_path / "out" / "manifest.json").read_bytes())["format_version"] == 2


def energy(values: Tensor) -> float:
    return float(values.square().sum())


def test_a_model_that_did_not_change(suite: Suite, tmp_path: Path) -> None:
    store = build(suite.pretrained, [changed_by(suite, tmp_path / "same", 0.0)], tmp_path / "out")
    assert (store.task("moved").distance, store.task("moved").energy_kept) == (0.0, 1.0)


def test_a_model_of_another_base_is_refused_before_anything_is_written(
    suite: Suite, stranger: TaskInput, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=r"^task stranger: its distance .* is 1\.\d\d, .*usual.*--force"):
        build(suite.pretrained, [*suite.tasks[:1], stranger], tmp_path / "out")
    assert list(tmp_path.glob("out/*")) == []
    forced = build(suite.pretrained, [*suite.tasks[:1], stranger], tmp_path / "out", BuildOptions(force=True))
    assert (forced.task("stranger").distance or 0) > 1
    assert forced.verify() == []


def test_it_is_not_added_to_a_store_either(store: Path, stranger: TaskInput) -> None:
    before = sorted(store.rglob("*")), (store / "manifest.json").read_bytes()
    with pytest.raises(TaskError, match="task stranger: its distance"):
        add_task(store, stranger)
    assert (sorted(store.rglob("*")), (store / "manifest.json").read_bytes()) == before
    assert add_task(store, stranger, force=True).task("stranger").distance


@pytest.mark.parametrize(("share", "refused"), [(0.79, False), (0.81, True), (-1.0, True)])
def test_the_limit(suite: Suite, tmp_path: Path, share: float, refused: bool) -> None:
    task = changed_by(suite, tmp_path / "moved", share)
    if refused:
        with pytest.raises(TaskError, match=f"is {abs(share):.2f}, usual is"):
            build(suite.pretrained, [task], tmp_path / "out")
    else:
        store = build(suite.pretrained, [task], tmp_path / "out")
        assert store.task("moved").distance == pytest.approx(share, rel=1e-4)


def test_a_base_of_zeros_is_refused_whatever_is_forced(suite: Suite, tmp_path: Path) -> None:
    shutil.copytree(suite.pretrained, tmp_path / "zeros")
    weights = load_file(tmp_path / "zeros" / "model.safetensors")
    save_file(
        {key: torch.zeros_like(value) for key, value in weights.items()},
        tmp_path / "zeros" / "model.safetensors",
    )
    with pytest.raises(TaskError, match="are all zero"):
        build(tmp_path / "zeros", suite.tasks[:1], tmp_path / "out", BuildOptions(force=True))


def test_the_warning() -> None:
    assert distance_warning("cars", None) is None
    assert distance_warning("cars", 0.3) is None
    assert "task cars: its distance from the pretrained model is 0.31, usual" in (
        distance_warning("cars", 0.31) or ""
    )


def test_a_store_of_version_1_says_nothing_and_stays_one(tmp_path: Path) -> None:
    shutil.copytree("tests/fixtures/store_v1/store", tmp_path / "old")
    old = Store.open(tmp_path / "old").manifest
    assert old.format_version == 1
    assert {(task.distance, task.energy_kept) for task in old.tasks} == {(None, None)}
    remaining = remove_task(tmp_path / "old", old.tasks[0].name).manifest
    assert remaining.format_version == 1
    assert b"energy_kept" not in (tmp_path / "old" / "manifest.json").read_bytes()


@pytest.mark.parametrize("scale", [1.0, 1e25])
def test_the_distance_of_huge_weights_is_a_number(scale: float, suite: Suite, tmp_path: Path) -> None:
    """Their squares are infinite in float32."""
    for folder, share in ((tmp_path / "base", 1.0), (tmp_path / "moved", 3.0)):
        shutil.copytree(suite.pretrained, folder)
        weights = load_file(folder / "model.safetensors")
        save_file(
            {key: value * scale * share for key, value in weights.items()}, folder / "model.safetensors"
        )
    save_head(tmp_path / "moved", 4, 16)
    with pytest.raises(TaskError, match=r"its distance from the pretrained model is 2\.00"):
        build(tmp_path / "base", [TaskInput("moved", tmp_path / "moved")], tmp_path / "out")
