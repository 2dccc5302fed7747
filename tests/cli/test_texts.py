"""Stores of text encoders from the command line: built, shown, verified, measured; they take no images."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mass_serve.cli.app import app
from mass_serve.engine import Engine, TokenClassification
from mass_serve.inputs.texts import Text
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
    image = images / "guard" / "guard 0" / "0.png"
    sentence = f"error: {image}: this is no text in UTF-8; the store reads texts: give --text or text files"
    assert sentence in failure("classify", image, "--store", store, code=1)
    assert "holds 0 texts; a store of 3 tasks needs at least 75" in failure("calibrate", store, images)
    assert "holds no texts; expected" in failure("eval", store, images)


def expected(store: Path, asked: list[str], **question: Any) -> list[tuple[str, str]]:
    """The task and the best label of each answer of the engine."""
    answers = Engine.load(str(store)).classify(asked, **question)
    return [(one.task, one.labels[int(one.logits.argmax())]) for one in answers]


def told(output: str) -> list[tuple[str, str, str]]:
    """Name, task and best label of each line, whatever else it may be."""
    lines = (line.split("\t") for line in output.splitlines())
    return [(name, task, labels.rpartition(" ")[0]) for name, task, labels, *_ in lines]


def test_texts_are_classified(store: Path, tmp_path: Path) -> None:
    letter, many = tmp_path / "letter.txt", tmp_path / "many.txt"
    letter.write_text("w40 w41\nw42", encoding="utf-8")
    many.write_bytes("\ufeffw50 é\r\n\r\n  \r\nw51 w52\r\n".encode())
    out, _ = run(
        "classify", letter, "--text", "w10\n w11", "--text", "w12", "--lines", many, "--store", store
    )
    asked = ["w10\n w11", "w12", "w40 w41\nw42", "w50 é", "w51 w52"]
    names = ["w10 w11", "w12", str(letter), f"{many}:1", f"{many}:4"]
    assert told(out) == [(name, *pair) for name, pair in zip(names, expected(store, asked), strict=True)]


@pytest.mark.parametrize(("given", "names"), [(["-"], ["-"]), (["--lines", "-"], ["-:1", "-:2"])])
def test_standard_input_is_a_text_or_lines(store: Path, given: list[str], names: list[str]) -> None:
    result = CliRunner().invoke(app, ["classify", *given, "--store", str(store)], input="w10 w11\nw20\n")
    assert result.exit_code == 0, result.output
    assert [name for name, _, _ in told(result.stdout)] == names


def test_texts_in_json_with_the_answer_of_every_task(store: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.txt"
    many.write_text("w10\n" + "w11 " * 100)
    flags = ("--lines", many, "--answer", "each", "--task", "safety", "--task", "guard", "--top", 2)
    results = json.loads(run("classify", *flags, "--store", store, "--json")[0])
    assert [(one["source"], one["cut"]) for one in results] == [
        *[(f"{many}:1", 0)] * 2,
        *[(f"{many}:2", 100 + 2 - texts.MAX_TOKENS)] * 2,
    ]
    assert [one["text"] for one in results[:3]] == ["w10", "w10", "w11 " * 100]
    asked = expected(store, ["w10", "w11 " * 100], tasks=["safety", "guard"], answer="each")
    assert [(one["task"], one["label"]) for one in results] == asked
    assert [len(one["top"]) for one in results] == [2] * 4


def test_pairs_are_classified(store: Path, tmp_path: Path) -> None:
    pair, other = ("w10\tw11", "w12 w13"), ("w20", "w21 w22")
    many = tmp_path / "many.jsonl"
    many.write_text(json.dumps({"text": "w20", "text_pair": "w21 w22"}) + '\n\n"w30 w31"\n')
    flags = ("--text", pair[0], "--text-pair", pair[1], "--lines", many, "--task", "guard", "--store", store)
    asked: list[Text] = [pair, other, "w30 w31"]
    answers = Engine.load(str(store)).classify(asked, ["guard"])
    found = [one.labels[int(one.logits.argmax())] for one in answers]
    names = ["w10 w11 | w12 w13", f"{many}:1", f"{many}:3"]
    assert told(run("classify", *flags)[0]) == [
        (name, "guard", label) for name, label in zip(names, found, strict=True)
    ]
    results = json.loads(run("classify", *flags, "--json")[0])
    assert [round(one["score"], 6) for one in results] == [
        round(float(one.probabilities.max()), 6) for one in answers
    ]
    assert [(one["text"], one.get("text_pair"), one["source"]) for one in results] == [
        (*pair, None),
        (*other, f"{many}:1"),
        ("w30 w31", None, f"{many}:3"),
    ]


def test_what_is_no_pair_is_named(store: Path, tmp_path: Path) -> None:
    one, two = ("--text", "w10"), ("--text", "w11")
    flags = (*one, *two, "--text-pair", "w12", "--store", store)
    assert "there are 2 --text and 1 --text-pair" in failure("classify", *flags)
    many = tmp_path / "many.jsonl"
    many.write_text('w10\n{"text": "w10"}\n{"text": "w10", "text_pair": ""}\n"w11"\n')
    out, errors = run("classify", "--lines", many, "--store", store, code=1)
    assert [name for name, _, _ in told(out)] == [f"{many}:4"]
    first, second, third = errors.splitlines()
    assert f"{many}:1: a line of a .jsonl file must be a text or a pair in JSON (Expecting value" in first
    assert f"{many}:2: a text must be a string, or a pair" in second
    assert f"{many}:3: The second text of the pair is empty" in third


def test_a_task_that_classifies_tokens_tells_entities(tmp_path: Path) -> None:
    models = texts.finetuned(tmp_path, "Bert", ("guard", "domain"), ("pii",))
    tasks = (f"--task={task.name}={task.checkpoint}" for task in models.tasks)
    store = tmp_path / "store"
    run("build", "--pretrained", models.pretrained, *tasks, "--force", "--out", store)
    asked = [" ".join(f"w{row}" for row in range(start, start + 20)) for start in (5, 25, 45)]
    (tmp_path / "many.txt").write_text("\n".join(asked))
    flags = ("--lines", tmp_path / "many.txt", "--task", "pii", "--aggregation", "none", "--store", store)
    answers = Engine.load(str(store)).classify(asked, ["pii"])
    found = [one.entities("none") for one in answers if isinstance(one, TokenClassification)]
    assert any(found)
    results = json.loads(run("classify", *flags, "--json")[0])
    assert [[(one["label"], one["text"], one["start"]) for one in own["entities"]] for own in results] == [
        [(one.label, one.text, one.start) for one in own] for own in found
    ]
    lines = [line.split("\t")[1:] for line in run("classify", *flags)[0].splitlines()]
    assert lines == [
        ["pii", ", ".join(f"{one.label} {one.text} {one.score:.3f}" for one in own)] for own in found
    ]
    pair = ("--text", "w5", "--text-pair", "w6", "--task", "pii", "--store", store)
    assert "a task that classifies tokens takes none" in failure("classify", *pair, code=1)
    sentence = "ask with answer 'each'"
    assert sentence in failure(
        "classify", "--text", "w5", "--task", "pii", "--task", "guard", "--store", store
    )


def test_what_is_no_text_is_named_and_the_others_are_answered(store: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.txt"
    many.write_text("w10\n\0\nw11")
    given = ("--text", " ", "--text", "w12", "--lines", many, "--lines", tmp_path / "missing.txt")
    out, errors = run("classify", *given, "--store", store, code=1)
    assert [name for name, _, _ in told(out)] == ["w12", f"{many}:1", f"{many}:3"]
    assert "error: --text: The text has no word" in errors
    assert f"error: {many}:2: The text has a NUL" in errors
    assert f"error: {tmp_path / 'missing.txt'}: No such file" in errors


def test_what_a_store_reads_is_told(store: Path, built_of_all: Path) -> None:
    assert "the store reads texts, and none is given: give --text TEXT" in failure(
        "classify", "--store", store
    )
    assert "the store reads images, and none is given" in failure("classify", "--store", built_of_all)
    sentence = "the store reads images, and a text is given: give image files"
    assert sentence in failure("classify", "--text", "w10", "--store", built_of_all)
    assert sentence in failure("classify", "--lines", "-", "--store", built_of_all)


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
