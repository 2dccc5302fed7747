"""Tasks learned from labelled images: what is kept, what is said of it, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from mass_serve.cli.app import app
from mass_serve.engine import Classification, Engine, EngineOptions
from mass_serve.evaluation.creation.discriminant import ClassMeans, Judged
from mass_serve.evaluation.creation.held_out import folds_of, held_out
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.format.heads import BIAS, CLASS_MEANS, WEIGHT
from mass_serve.model_store.store import Store

COLOURS = {"amber": (230, 160, 20), "blue": (20, 40, 220), "green": (20, 200, 60)}


def write_images(root: Path, counts: dict[str, int], spread: float = 20.0) -> Path:
    """Pictures of one colour and some noise each, in folders named as the colours."""
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = generator.normal(0, spread, (32, 32, 3))
            pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", dict.fromkeys(COLOURS, 5))


def run(*arguments: object, code: int = 0) -> str:
    """What a command prints: on standard output, or of one that fails its one line."""
    result = CliRunner().invoke(app, ["task", "create", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def label(answer: Classification) -> str:
    return answer.labels[int(answer.logits.argmax())]


def test_a_task_is_created_and_answers(store: Path, images: Path) -> None:
    said: dict[str, Any] = json.loads(run(store, "colours", images, "--json"))
    assert said["labels"] == list(COLOURS)
    assert said["images"] == 15
    accuracies = said["held_out_accuracy"]
    assert accuracies["guessing"] == pytest.approx(1 / 3, abs=1e-4)
    assert accuracies["pretrained_encoder"] > 0.9
    assert 0 <= accuracies["combination"] <= 1
    # All are right by the pretrained encoder: a combination cannot be better, and is not kept.
    assert said["combination_of"] == ([] if accuracies["pretrained_encoder"] == 1 else said["combination_of"])
    opened = Store.open(store)
    assert opened.verify() == []
    assert said["revision"] == opened.task("colours").revision
    assert said["store_revision"] == opened.manifest.store_revision
    engine = Engine.load(str(store))
    answers = engine.classify([Image.new("RGB", (32, 32), COLOURS["blue"])], ["colours"])
    assert label(answers[0]) == "blue"
    routed = engine.classify([Image.new("RGB", (32, 32), COLOURS["green"])])
    assert routed[0].task in engine.tasks


def test_what_is_said_names_what_was_kept(store: Path, images: Path) -> None:
    said = run(store, "colours", images)
    assert "colours: 3 labels, 15 images" in said
    assert "kept: the pretrained encoder" in said
    inspected = CliRunner().invoke(app, ["inspect", str(store)])
    assert "created colours: a head alone" in inspected.stdout
    assert str(store) in said


def test_a_head_alone_is_all_that_is_tried_where_it_is_asked_for(store: Path, images: Path) -> None:
    said = run(store, "colours", images, "--head-alone")
    assert "combination of tasks    not tried: it was not asked for" in said
    assert "kept: the pretrained encoder" in said


def test_created_again_with_replace(store: Path, images: Path) -> None:
    run(store, "colours", images)
    first = Store.open(store).task("colours").revision
    assert "exists already: pass --replace" in run(store, "colours", images, code=2)
    run(store, "colours", images, "--replace")
    again = Store.open(store)
    assert again.task("colours").revision != first
    assert [entry.revision for entry in again.manifest.history["colours"]] == [first]


def test_two_images_of_a_class_are_enough_for_a_head(store: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "few", dict.fromkeys(COLOURS, 2))
    said = json.loads(run(store, "colours", folder, "--json"))
    assert said["held_out_accuracy"]["combination"] is None
    assert said["combination_of"] == []


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"amber": 5}, "images of one class, amber"),
        ({"amber": 5, "blue": 1}, "blue has one image: a class needs at least 2"),
        ({}, "is no folder"),
    ],
)
def test_too_few_images_are_refused(store: Path, tmp_path: Path, counts: dict[str, int], says: str) -> None:
    before = (store / MANIFEST_FILE).read_bytes()
    write_images(tmp_path / "images", counts)
    assert says in " ".join(run(store, "colours", tmp_path / "images", code=2).split())
    assert (store / MANIFEST_FILE).read_bytes() == before


def test_an_image_that_cannot_be_read_is_named(store: Path, images: Path) -> None:
    (images / "blue" / "9.png").write_bytes(b"no image")
    said = run(store, "colours", images, code=2)
    assert "9.png" in said.replace("\n", "")
    assert "colours" not in {task.name for task in Store.open(store).manifest.tasks}


def test_an_empty_class_and_images_of_no_class_are_named(store: Path, images: Path) -> None:
    (images / "red").mkdir()
    assert "holds no images: add some, or delete it" in run(store, "colours", images, code=2).replace(
        "\n", " "
    )
    (images / "red").rmdir()
    shutil.copy(images / "blue" / "0.png", images / "stray.png")
    assert "in no folder of a class, such as stray" in " ".join(run(store, "colours", images, code=2).split())


def test_classes_that_cannot_be_told_apart_are_refused_with_figures(store: Path, tmp_path: Path) -> None:
    """Every class has the same pictures."""
    folder = write_images(tmp_path / "images", {"amber": 6})
    for name in ("blue", "green"):
        shutil.copytree(folder / "amber", folder / name)
    said = " ".join(run(store, "colours", folder, code=2).split())
    assert "cannot be told apart: of 18 images" in said
    assert "guessing has 33.3%" in said
    assert Store.open(store).manifest.find_task("colours") is None


def test_names_that_cannot_be_had_are_refused_before_anything_is_learned(store: Path, images: Path) -> None:
    assert "exists already" in run(store, "digits", images, code=2)
    assert "differ in their case" in run(store, "DIGITS", images, code=2)
    assert run(store, "../up", images, code=2)


def test_a_store_of_texts_is_refused(text_store: Path, images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(text_store, tmp_path / "texts")
    said = " ".join(run(copy, "colours", images, code=2).split())
    assert "reads texts, and tasks are created from images alone" in said


def test_a_store_in_the_papers_mode_is_refused(store: Path, images: Path) -> None:
    content = json.loads((store / MANIFEST_FILE).read_text())
    content["router"]["mode"] = "paper"
    (store / MANIFEST_FILE).write_text(json.dumps(content))
    assert "tells tasks by directions of their own" in " ".join(run(store, "colours", images, code=2).split())


def test_created_tasks_answer_and_are_told_apart_without_any_other(store: Path, images: Path) -> None:
    run(store, "colours", images)
    blue = Image.new("RGB", (32, 32), COLOURS["blue"])
    alone = Engine.open(str(store), EngineOptions(), without=["digits", "street", "signs"])
    assert label(alone.classify([blue])[0]) == "blue"
    run(store, "more", images)
    both = Engine.open(str(store), EngineOptions(), without=["digits", "street", "signs"])
    for mode in ("one_pass", "fast", "balanced", "exact"):
        assert label(both.classify([blue], mode=mode)[0]) == "blue"


@pytest.mark.parametrize("counts", [[5, 5, 5], [2, 3, 9], [4, 7, 5], [1, 1]])
def test_folds_have_some_of_every_class_and_leave_some(counts: list[int]) -> None:
    rows = list(torch.split(torch.arange(sum(counts)), counts))
    folds = folds_of(rows)
    assert int(folds.max()) + 1 == min(4, *counts)
    for own in rows:
        for fold in range(int(folds.max()) + 1):
            inside = int((folds[own] == fold).sum())
            assert inside >= 1
            assert int(folds.max()) == 0 or inside < len(own)


def embedded(seed: int, classes: int = 4, of_each: int = 30, width: int = 8) -> tuple[Tensor, Tensor]:
    """Embeddings of classes that differ little along a direction, and vary much along another."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(classes).repeat_interleave(of_each)
    noise = torch.randn(len(targets), width, generator=generator)
    noise[:, 0] *= 8
    noise[:, 1] += 2.5 * targets
    return noise, targets


def test_a_discriminant_sees_what_the_nearest_mean_does_not() -> None:
    x, targets = embedded(0)
    others, _ = embedded(1)
    told = ClassMeans.of(x, targets, 4)
    shrunk, nearest = (Judged.of(told.head(a), others, targets).accuracy for a in (0.0, 1.0))
    assert shrunk > nearest + 0.2
    inverse = torch.linalg.inv(told.covariance)
    weight, bias = told.head(0.0)
    distances = [((others.double() - m) @ inverse * (others.double() - m)).sum(1) for m in told.means]
    assert torch.equal((others.double() @ weight.T + bias).argmax(1), torch.stack(distances, 1).argmin(1))


def test_the_best_shrinkage_is_by_images_that_were_held_out() -> None:
    x, targets = embedded(0)
    seen: list[Tensor] = []

    def embed(known: Tensor) -> Tensor:
        seen.append(known)
        return x

    folds = folds_of(list(torch.split(torch.arange(len(x)), [30] * 4)))
    found = held_out(embed, targets, folds)
    assert found.shrinkage < 1
    assert len(found.judged.right) == len(x)
    assert torch.stack(seen).logical_not().sum(0).eq(1).all()  # each is held out once


def test_probabilities_are_as_often_right_as_they_say() -> None:
    """By the scale, which the shrunk covariance does not give."""
    x, targets = embedded(0, of_each=400)
    told = ClassMeans.of(x, targets, 4)
    judged = Judged.of(told.head(0.6), x, targets)
    head = told.tensors(0.6, judged.scale, told).tensors
    logits = x @ head[WEIGHT].T + head[BIAS]
    assert float(logits.softmax(1).amax(1).mean()) == pytest.approx(judged.accuracy, abs=0.05)
    torch.testing.assert_close(head[CLASS_MEANS].norm(dim=1), torch.ones(4))
