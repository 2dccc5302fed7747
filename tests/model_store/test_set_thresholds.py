"""Thresholds of a finished store's task changed: all else stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import IntegrityError, TaskError
from mass_serve.model_store.revisions import calibrate_store, prune_store, set_thresholds
from mass_serve.model_store.store import Store
from tests import texts

NAMES = ("guard", "domain")
OPTIONS = BuildOptions(force=True, mode="paper", merged_base="stored")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    models = texts.finetuned(tmp_path, "Bert", NAMES, multi_label=("domain",))
    tasks = [replace(task, individual_accuracy=0.5) for task in models.tasks]
    built = build(models.pretrained, tasks, tmp_path / "store", OPTIONS)
    tensors = {
        "means": torch.zeros(2, 3, 2, dtype=torch.float64),
        "covariance": torch.eye(6, dtype=torch.float64).view(3, 2, 3, 2),
        "images": torch.full((2,), 100.0, dtype=torch.float64),
        "owner": torch.eye(2, dtype=torch.float64),
    }
    return calibrate_store(built, tensors, NAMES, 200, 0.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.json").write_text('{"domain 2": 0.125}')
    return tmp_path / "mine.json"


def test_calibration_and_merged_base_stay(store: Store, file: Path) -> None:
    changed = set_thresholds(store.files.url, "domain", file)
    assert changed.task("domain").head.thresholds == (0.5, 0.5, 0.125, 0.5)
    assert changed.task("guard") == store.task("guard")
    assert changed.manifest.files == store.manifest.files
    assert changed.manifest.calibrated_tasks(NAMES) == (0, 1)
    assert changed.manifest.store_revision != store.manifest.store_revision
    assert changed.verify() == []
    prune_store(store.files.url)
    assert Store.open(store.files.url).verify() == []


def test_every_change_is_a_revision(store: Store, file: Path) -> None:
    for _ in range(2):
        changed = set_thresholds(store.files.url, "domain", file)
    assert changed.manifest.calibrated_tasks(NAMES) == (0, 1)
    assert len(changed.manifest.history["domain"]) == 2


def test_what_was_measured_by_other_thresholds_is_forgotten(store: Store, file: Path) -> None:
    changed = set_thresholds(store.files.url, "domain", file)
    assert changed.task("domain").individual_accuracy is None
    assert changed.task("guard").individual_accuracy == 0.5


def test_a_damaged_file_is_not_copied(store: Store, file: Path) -> None:
    path = Path(store.files.url) / store.task("domain").head_file
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    before = store.files.list()
    with pytest.raises(IntegrityError):
        set_thresholds(store.files.url, "domain", file)
    assert store.files.list() == before


def test_a_task_that_gives_one_label_has_none(store: Store, file: Path) -> None:
    with pytest.raises(TaskError, match="guard gives an input one label, and has no thresholds"):
        set_thresholds(store.files.url, "guard", file)


def test_a_task_that_classifies_tokens_can_have_none(tmp_path: Path, file: Path) -> None:
    models = texts.finetuned(tmp_path, "Bert", ("guard",), of_tokens=("names",))
    store = build(models.pretrained, models.tasks, tmp_path / "store", OPTIONS)
    with pytest.raises(TaskError, match="names gives each token one label, and can have no thresholds"):
        set_thresholds(store.files.url, "names", file)
