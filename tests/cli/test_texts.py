"""Stores of text encoders from the command line: they are built, shown and verified, and take no images."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests import texts
from tests.cli.test_stores import failure, run


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> texts.Finetuned:
    return texts.finetuned(tmp_path_factory.mktemp("models"), "ModernBert")


@pytest.fixture(scope="module")
def flags(models: texts.Finetuned) -> list[str]:
    tasks = (f"--task={task.name}={task.checkpoint}" for task in models.tasks)
    return ["--pretrained", str(models.pretrained), *tasks, "--force"]


@pytest.fixture(scope="module")
def store(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts") / "store"
    run("build", *flags, "--out", folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for task in ("guard", "domain", "safety"):
        folder = tmp_path / task / f"{task} 0"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "0.png")
    return tmp_path


def test_a_store_of_texts_is_shown_and_verified(store: Path) -> None:
    shown, _ = run("inspect", store)
    assert "encoder: texts of 97 words, at most 80 tokens, 5 blocks of width 48, pooling class" in shown
    run("verify", store)


def test_a_store_of_texts_takes_no_images(store: Path, images: Path) -> None:
    sentence = "this store reads texts, and images are asked of it: give one that reads images"
    assert sentence in failure("classify", images / "guard" / "guard 0" / "0.png", "--store", store)
    # Before more images are asked for.
    assert "reads texts, and a store is calibrated by images" in failure("calibrate", store, images)
    assert "reads texts, and what is measured here is measured on images" in failure("eval", store, images)


def test_accuracies_of_text_classifiers_are_not_measured_on_images(
    flags: list[str], images: Path, tmp_path: Path
) -> None:
    refused = failure("build", *flags, "--out", tmp_path / "store", "--eval-data", images)
    assert "accuracies are measured on images, and the pretrained model reads texts: give them" in refused
    assert not (tmp_path / "store").exists()
