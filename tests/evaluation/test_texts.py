"""Labelled texts in every form, evaluated as images are; what is wrong with them is named by its line."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mass_serve.engine import Engine
from mass_serve.evaluation import EvaluationData, EvaluationDataError, Options, files_of
from mass_serve.evaluation.data import InputBatch, of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.index import HALVES, Selection
from mass_serve.evaluation.plots import write_plots
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.router import MODE_NAMES
from tests import texts

Row = tuple[str, str]  # text and label
CLASSES = {"guard": 3, "domain": 4, "safety": 5}


def some_rows(task: str, count: int) -> list[Row]:
    rng = random.Random(task)
    words = (" ".join(f"w{rng.randrange(5, texts.VOCABULARY)}" for _ in range(9)) for _ in range(count))
    return [(text, f"{task} {number % CLASSES[task]}") for number, text in enumerate(words)]


ROWS = {"guard": some_rows("guard", 13), "domain": some_rows("domain", 8)}


def as_json_lines(root: Path, task: str, rows: list[Row]) -> None:
    lines = [json.dumps({"text": text, "label": label, "id": 7}) for text, label in rows]
    (root / f"{task}.jsonl").write_text("\n\n".join(lines))


def as_table(root: Path, task: str, rows: list[Row], suffix: str = "csv", delimiter: str = ",") -> None:
    with (root / f"{task}.{suffix}").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("label", "text"), *((b, a) for a, b in rows)])


def as_tabs(root: Path, task: str, rows: list[Row]) -> None:
    as_table(root, task, rows, "tsv", "\t")


def as_folders(root: Path, task: str, rows: list[Row]) -> None:
    for number, (text, label) in enumerate(rows):
        path = root / task / label / f"{number:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


FORMS = (as_json_lines, as_table, as_tabs, as_folders)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("store")
    models = texts.finetuned(folder, "Bert")
    options = BuildOptions(compression_ratio=1.0, block_dtype="float32", force=True)
    build(models.pretrained, models.tasks, folder / "store", options, modes=MODE_NAMES)
    return Engine.load(str(folder / "store"), device="cpu", mode="exact")


def data_of(engine: Engine, root: Path, journal: Path | None = None) -> EvaluationData:
    labels = of_whole_inputs(engine.tasks)
    return EvaluationData(root, labels, files_of(engine), journal)


def batches(data: EvaluationData, task: str) -> list[InputBatch]:
    return [batch for half in HALVES for batch in data.batches(Selection(task, half))]


@pytest.mark.parametrize("write", FORMS)
def test_every_form_has_the_same_texts_and_classes(
    engine: Engine, tmp_path: Path, write: Callable[[Path, str, list[Row]], None]
) -> None:
    for task, rows in ROWS.items():
        write(tmp_path, task, rows)
    data = data_of(engine, tmp_path)
    assert data.tasks == ["domain", "guard"]
    for task, rows in ROWS.items():
        found = {
            (tuple(words[:, 0].tolist()), target[0])
            for batch in batches(data, task)
            for words, target in zip(batch.inputs, batch.targets, strict=True)
        }
        assert engine.tokenizer is not None
        labels = engine.tasks[task].labels
        assert found == {
            (tuple(engine.tokenizer.tokens(text).words[:, 0].tolist()), labels.index(label))
            for text, label in rows
        }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for task, rows in ROWS.items():
        as_json_lines(tmp_path / "data", task, rows)
    return tmp_path / "data"


def test_the_figures_are_the_counts_of_the_engines_answers(engine: Engine, folder: Path) -> None:
    figures = evaluate(engine, data_of(engine, folder))
    for task, rows in ROWS.items():
        answers = engine.classify([text for text, _ in rows])
        named = engine.classify([text for text, _ in rows], tasks=[task])
        given = [(a.task, a.labels[int(a.probabilities.argmax())]) for a in answers]
        known = [a.labels[int(a.probabilities.argmax())] for a in named]
        found = figures["tasks"][task]
        assert found["images"] == len(rows)
        assert found["accuracy"] == sum(
            g == (task, label) for g, (_, label) in zip(given, rows, strict=True)
        ) / len(rows)
        right = sum(k == label for k, (_, label) in zip(known, rows, strict=True))
        assert found["baselines"]["tsv_c"] == right / len(rows)
    assert set(figures["average"]["baselines"]) >= {"tsv_m", "task_arithmetic", "weight_averaging"}
    assert figures["average"]["baselines"]["task_arithmetic"] is not None


def test_what_no_task_covers_is_held_against_it(engine: Engine, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ood" / "letters").mkdir(parents=True)
    (tmp_path / "ood" / "letters" / "a.txt").write_text("w9 w9 w9")
    (tmp_path / "ood" / "lines.csv").write_text("text\nw5 w6\nw7 w8\n")
    (tmp_path / "ood" / "README.md").write_text("no text of a domain")
    found = evaluate(engine, data_of(engine, folder), options=Options(unfamiliar=tmp_path / "ood"))[
        "unfamiliar"
    ]
    assert found is not None
    assert {name: domain["images"] for name, domain in found["domains"].items()} == {"letters": 1, "lines": 2}
    assert 0 <= found["average"]["auroc"] <= 1


def test_a_run_goes_on_and_a_journal_of_other_texts_is_refused(
    engine: Engine, folder: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    first = evaluate(engine, data_of(engine, folder, journal))
    again = evaluate(engine, data_of(engine, folder, journal))
    assert json.dumps(first) == json.dumps(again) == json.dumps(evaluate(engine, data_of(engine, folder)))
    file = folder / "guard.jsonl"
    file.write_text(file.read_text().replace("w", "W", 1))
    with pytest.raises(EvaluationDataError, match=r"other texts \(guard\.jsonl:1 differs\)"):
        data_of(engine, folder, journal)


def test_the_plots_are_written(engine: Engine, folder: Path, tmp_path: Path) -> None:
    written = write_plots(evaluate(engine, data_of(engine, folder)), tmp_path / "plots")
    assert all(path.stat().st_size > 1000 for path in written)


def test_a_class_may_be_numbered(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "guard.jsonl").write_text('{"text": "w9", "label": 2}\n{"text": "w8", "label": "1"}\n')
    targets = [target[0] for batch in batches(data_of(engine, tmp_path), "guard") for target in batch.targets]
    assert sorted(targets) == [1, 2]


def test_two_texts_may_be_a_pair(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "guard.jsonl").write_text('{"text": "w9", "text_pair": "w8 w7", "label": 0}\n')
    (tmp_path / "domain.csv").write_text("label,text,text_pair\n1,w9,w8 w7\n")
    data = data_of(engine, tmp_path)
    assert engine.tokenizer is not None
    expected = engine.tokenizer.tokens(("w9", "w8 w7")).words.tolist()
    assert [words.tolist() for words in batches(data, "guard")[0].inputs] == [expected]
    assert [words.tolist() for words in batches(data, "domain")[0].inputs] == [expected]


@pytest.mark.parametrize(("suffix", "between"), [("csv", ","), ("tsv", "\t")])
def test_a_row_without_a_second_text_is_a_single_text(
    engine: Engine, tmp_path: Path, suffix: str, between: str
) -> None:
    rows = [("label", "text", "text_pair"), ("1", "w9", "w8 w7"), ("1", "w9", "")]
    (tmp_path / f"domain.{suffix}").write_text("".join(between.join(row) + "\n" for row in rows))
    assert engine.tokenizer is not None
    expected = [engine.tokenizer.tokens(text).words.tolist() for text in (("w9", "w8 w7"), "w9")]
    found = [words.tolist() for one in batches(data_of(engine, tmp_path), "domain") for words in one.inputs]
    assert sorted(found, key=len) == sorted(expected, key=len)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("guard.jsonl", '{"text": "w5", "label": "guard 1"}\n{"text"', "guard.jsonl:2: is no JSON"),
        ("guard.jsonl", "[1, 2]", "guard.jsonl:1: must be an object such as"),
        ("guard.jsonl", '\n{"label": "guard 1"}', "guard.jsonl:2: 'text' must be a text, and is missing"),
        ("guard.jsonl", '{"text": 5, "label": 0}', "guard.jsonl:1: 'text' must be a text, and is 5"),
        (
            "guard.jsonl",
            '{"text": "w5", "text_pair": 5}',
            "jsonl:1: 'text_pair' must be a text, and is 5",
        ),
        (
            "guard.jsonl",
            '{"text": "w5", "text_pair": "", "label": 0}',
            "The second text of the pair is empty",
        ),
        ("guard.jsonl", '{"text": "", "label": 0}', "guard.jsonl:1: The text is empty"),
        ("guard.jsonl", '{"text": "a\\u0000", "label": 0}', "guard.jsonl:1: The text has a NUL"),
        (
            "guard.jsonl",
            '{"text": "a\\ud800", "label": 0}',
            "jsonl:1: The text has half of a surrogate",
        ),
        ("guard.jsonl", '{"text": "w5"}', "guard.jsonl:1: has no label; guard has guard 0, guard 1, guard 2"),
        ("guard.jsonl", '{"text": "w5", "label": "cats"}', "guard.jsonl:1: has the label 'cats'"),
        ("guard.jsonl", '{"text": "w5", "label": 3}', "guard.jsonl:1: has the label 3.*0 to 2"),
        (
            "guard.jsonl",
            '{"text": "w5", "label": true}',
            "jsonl:1: 'label' must be the name of a class",
        ),
        ("guard.jsonl", '{"text": "w5", "label": 0.5}', "jsonl:1: 'label' must be the name of a class"),
        ("guard.csv", "sentence,label\nw5,guard 0\n", "guard.csv:1: must name the columns, text among them"),
        ("guard.csv", 'text,label\n"w5\nw6",guard 0\nw7\n', "guard.csv:4: has 1 columns, and line 1 names 2"),
        ("guard.csv", 'text,label\n"w5,guard 0\n', "guard.csv:2: unexpected end of data"),
        ("guard.tsv", "text\tlabel\nw5\tguard 9\n", "guard.tsv:2: has the label 'guard 9'"),
        ("nobody.jsonl", "", "nobody.jsonl is named as no task of the store; it has"),
        ("guard/cats/a.txt", "w5", "cats is named as no class of guard"),
        ("guard/guard 0/a.txt", " \n", "a.txt: The text is empty"),
        ("notes.md", "", "holds no texts; expected .*/<task>.jsonl"),
    ],
)
def test_what_is_no_labelled_text_is_refused_where_it_is(
    engine: Engine, tmp_path: Path, name: str, content: str, said: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with pytest.raises(EvaluationDataError, match=said):
        data_of(engine, tmp_path)


def test_other_than_utf8_is_refused_by_line(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "guard.csv").write_bytes("text,label\nw5,guard 0\ncaf\u00e9,guard 1\n".encode("latin-1"))
    with pytest.raises(EvaluationDataError, match=r"guard\.csv:3: is no UTF-8"):
        data_of(engine, tmp_path)


def test_a_task_has_one_place(engine: Engine, tmp_path: Path) -> None:
    as_json_lines(tmp_path, "guard", ROWS["guard"])
    as_folders(tmp_path, "guard", ROWS["guard"])
    with pytest.raises(EvaluationDataError, match="has guard twice: a task has one file, or one folder"):
        data_of(engine, tmp_path)


def test_a_text_of_no_token_is_named_when_it_is_read(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "guard.jsonl").write_text('{"text": "w5", "label": 0}\n{"text": "\\u200b", "label": 0}\n')
    with pytest.raises(EvaluationDataError, match=r"guard\.jsonl:2: The text has no word"):
        evaluate(engine, data_of(engine, tmp_path))
