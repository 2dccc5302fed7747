"""Stores of text encoders from the command line: built, shown, verified, measured; they take no images."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from mass_serve.engine import Engine
from mass_serve.model_store.store import Store
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
    assert "holds 0 texts; a store of 3 tasks needs at least 75" in failure("calibrate", store, images)
    assert "holds no texts; expected" in failure("eval", store, images)


def test_accuracies_of_text_classifiers_are_not_measured_on_images(
    flags: list[str], images: Path, tmp_path: Path
) -> None:
    refused = failure("build", *flags, "--out", tmp_path / "store", "--eval-data", images)
    assert "holds no texts; expected" in refused
    assert not (tmp_path / "store").exists()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty texts of each task, one a line."""
    root, rng = tmp_path_factory.mktemp("labelled"), random.Random(0)
    for task, classes in (("guard", 3), ("domain", 4), ("safety", 5)):
        words = (" ".join(f"w{rng.randrange(5, texts.VOCABULARY)}" for _ in range(12)) for _ in range(40))
        lines = (
            json.dumps({"text": text, "label": f"{task} {number % classes}"})
            for number, text in enumerate(words)
        )
        (root / f"{task}.jsonl").write_text("\n".join(lines))
    return root


def test_individual_accuracies_are_measured_on_texts(
    flags: list[str], labelled: Path, models: texts.Finetuned, tmp_path: Path
) -> None:
    run("build", *flags, "--out", tmp_path / "store", "--eval-data", labelled)
    tokenizer = Engine.load(str(tmp_path / "store")).tokenizer
    assert tokenizer is not None
    for task in Store.open(tmp_path / "store").manifest.tasks:
        model = models.models[task.name]
        rows = [json.loads(line) for line in (labelled / f"{task.name}.jsonl").read_text().splitlines()]
        right = 0
        for row in rows:
            words = torch.from_numpy(tokenizer.tokens(row["text"]).words)[:, 0]
            right += task.labels[int(model(input_ids=words.unsqueeze(0)).logits.argmax())] == row["label"]
        assert task.individual_accuracy == right / len(rows)


def test_a_store_of_texts_is_measured_and_calibrated(store: Path, labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    out, _ = run("eval", tmp_path / "store", labelled, "--baseline", "tsv_c", "--ood", labelled)
    assert "texts that no task covers" in out
    assert "images" not in out
    report = json.loads(run("calibrate", tmp_path / "store", labelled, "--json")[0])
    assert report["texts"] == 120
    assert sum(report["texts_of"].values()) <= 120.1
    assert Store.open(tmp_path / "store").verify() == []
    assert "calibrated on 120 texts\n" in run("inspect", tmp_path / "store")[0]


def test_one_file_of_texts_is_enough_to_calibrate(store: Path, labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    together = tmp_path / "asked.csv"
    rows = [json.loads(line) for path in labelled.iterdir() for line in path.read_text().splitlines()]
    together.write_text("text\n" + "".join(f"{row['text']}\n" for row in rows))
    out, _ = run("calibrate", tmp_path / "store", together)
    assert "120 texts" in out


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[texts.Finetuned, Path]:
    """A store of three tasks that classify texts and one that classifies their tokens."""
    folder = tmp_path_factory.mktemp("mixed")
    models = texts.finetuned(folder, "ModernBert", of_tokens=("pii",))
    tasks = (f"--task={task.name}={task.checkpoint}" for task in models.tasks)
    run("build", "--pretrained", models.pretrained, *tasks, "--force", "--out", folder / "store")
    return models, folder / "store"


def test_what_a_task_classifies_is_shown(mixed: tuple[texts.Finetuned, Path], tmp_path: Path) -> None:
    models, store = mixed
    shown, _ = run("inspect", store)
    heads = {line.split()[1]: line for line in shown.splitlines() if "stack" in line}
    assert {name: "stack, each token" in line for name, line in heads.items()} == {
        "guard": False,
        "domain": False,
        "safety": False,
        "pii": True,
    }
    copy = shutil.copytree(store, tmp_path / "store")
    added, _ = run("task", "add", copy, "names", models.tasks[-1].checkpoint, "--force")
    assert added.startswith("names: classifies tokens, distance from the base")


def test_tasks_that_classify_tokens_are_not_measured(
    mixed: tuple[texts.Finetuned, Path], labelled: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(mixed[1], tmp_path / "store")
    figures = tmp_path / "figures.json"
    _, said = run("eval", copy, labelled, "--json", figures, "--baseline", "individual")
    assert "left out, as they classify tokens and not whole texts: pii" in said
    assert sorted(json.loads(figures.read_text())["tasks"]) == ["domain", "guard", "safety"]
    run("calibrate", copy, labelled)
    calibration = Store.open(copy).manifest.calibration
    assert calibration is not None
    assert list(calibration.tasks) == ["guard", "domain", "safety"]
    engine = Engine.load(str(copy), device="cpu")
    assert engine.classify(["w10 w11"])[0].evidence is not None
    run("task", "remove", copy, "guard")
    run("task", "remove", copy, "domain")
    refused = failure("calibrate", copy, labelled)
    assert "has one task that inputs are routed to: there is nothing to choose" in refused
    run("task", "remove", copy, "safety")
    assert "all tasks of the store classify tokens (pii)" in failure("eval", copy, labelled)
    assert Engine.load(str(copy), device="cpu").classify(["w10 w11"])[0].task == "pii"
