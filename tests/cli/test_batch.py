"""`mass-serve batch`, and `mass-serve classify` of a folder, on tiny real stores."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from mass_serve import jobs
from mass_serve.engine import Engine
from mass_serve.inputs.images import ImageLimits, decode_image
from mass_serve.jobs import run_job
from mass_serve.model_store.group_revisions import add_to_group
from tests.cli.test_serving import run
from tests.imports import ROOT
from tests.jobs.made import rows_in, write_images, write_lines
from tests.server_processes import PATIENCE


def test_a_folder_is_answered_as_the_engine_answers(built_of_all: Path, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 40)
    code, told, _ = run(
        "batch", built_of_all, tmp_path / "in", "--out", tmp_path / "out", "--top", 2, "--json"
    )
    engine = Engine.load(str(built_of_all))
    assert code == 0
    assert json.loads(told) == {
        **{"inputs": 40, "failed": 0, "left_out": 0},
        **{"store_revision": engine.store_revision, "out": str(tmp_path / "out")},
    }
    answers = engine.classify([decode_image(path.read_bytes(), ImageLimits(1 << 20)) for path in paths])
    rows = rows_in(tmp_path / "out")
    for row, path, answer in zip(rows, paths, answers, strict=True):
        scores, order = answer.probabilities.sort(descending=True)
        assert (row["id"], row["task"]) == (str(path), answer.task)
        assert [one["label"] for one in row["top"]] == [answer.labels[at] for at in order[:2].tolist()]
        assert [one["score"] for one in row["top"]] == scores[:2].tolist(), "the same bits"
        assert (row["label"], row["score"]) == (row["top"][0]["label"], row["top"][0]["score"])
        assert (row["familiarity"], row["unrouted"]) == (answer.familiarity, answer.unrouted)


def test_a_mode_of_the_search(built_of_all: Path, tmp_path: Path) -> None:
    [path] = write_images(tmp_path / "in", 1)
    flags = ("--out", tmp_path / "out", "--mode", "one_pass")
    assert run("batch", built_of_all, tmp_path / "in", *flags)[0] == 0
    picture = decode_image(path.read_bytes(), ImageLimits(1 << 20))
    [answer] = Engine.load(str(built_of_all)).classify([picture], mode="one_pass")
    assert [row["familiarity"] for row in rows_in(tmp_path / "out")] == [answer.familiarity]
    other = run("batch", built_of_all, tmp_path / "in", "--out", tmp_path / "out", "--mode", "exact")
    assert other[0] == 1, "the answers of a job are of one mode"
    assert "mode" in other[2]


def test_a_group_of_tasks(store: Path, tmp_path: Path) -> None:
    add_to_group(store, "numbers", ["digits", "street"])
    write_images(tmp_path / "in", 2)
    flags = ("--out", tmp_path / "out", "--task", "@numbers", "--answer", "each")
    assert run("batch", store, tmp_path / "in", *flags)[0] == 0
    assert [row["task"] for row in rows_in(tmp_path / "out")] == ["digits", "street"] * 2
    code, _, errors = run("classify", "--store", store, "--task", "@roads", tmp_path / "in")
    assert (code, errors) == (2, "error: there is no group '@roads'; the groups are: @numbers\n")


def test_each_task_and_an_embedding(built_of_all: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 3)
    (tmp_path / "in" / "00001.png").write_bytes(b"broken")
    flags = ("--answer", "each", "--task", "street", "--task", "digits", "--embedding")
    code, _, errors = run("batch", built_of_all, tmp_path / "in", "--out", tmp_path / "out", *flags)
    rows = rows_in(tmp_path / "out")
    assert code == 1
    assert "3 inputs are answered" in errors
    assert "1 inputs could not be read; the column `error` of their rows says why" in errors
    assert [row["task"] for row in rows] == ["street", "digits", None, "street", "digits"]
    engine = Engine.load(str(built_of_all))
    picture = decode_image((tmp_path / "in" / "00002.png").read_bytes(), ImageLimits(1 << 20))
    assert rows[3]["embedding"] == engine.embed([picture])[0].tolist()
    assert rows[2]["embedding"] is None


def test_a_task_that_classifies_tokens(text_store: Path, tmp_path: Path) -> None:
    asked = [" ".join(f"w{row}" for row in range(start, start + 20)) for start in (5, 25, 45)]
    table = write_lines(tmp_path / "t.jsonl", asked)
    code, _, errors = run("batch", text_store, table, "--out", tmp_path / "out", "--task", "names")
    assert code == 0, errors
    answers: list[Any] = list(Engine.load(str(text_store)).classify(asked, ["names"]))
    for row, answer in zip(rows_in(tmp_path / "out"), answers, strict=True):
        found = [(one["label"], one["score"], one["start"], one["text"]) for one in row["entities"]]
        assert found == [(one.label, one.score, one.start, one.text) for one in answer.entities()]
        assert (row["label"], row["cut"]) == (None, 0)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--task", "cats"), 2, "error: there is no task 'cats'; there are digits, street, signs"),
        (("--format", "csv"), 2, "csv"),
        (("--out", "s3://bucket/results"), 2, "is a URL, and results are written to a folder"),
        (("--column", "nosuch"), 1, "1 inputs could not be read"),
    ],
)
def test_what_is_asked_wrongly(
    built_of_all: Path, tmp_path: Path, flags: tuple[str, ...], code: int, words: str
) -> None:
    table = write_lines(tmp_path / "t.jsonl", [{"image": "x.png"}])
    found, _, errors = run("batch", built_of_all, table, "--out", tmp_path / "out", *flags)
    assert (found, words in errors) == (code, True), errors


@pytest.mark.parametrize(
    ("setting", "first", "other"),
    [("embedding_pooling", "own", "mean"), ("first_pass_dtype", "same", "int8")],
)
def test_a_job_has_one_setting_of_what_its_answers_depend_on(
    text_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, first: str, other: str
) -> None:
    table = write_lines(tmp_path / "t.jsonl", ["w5 w6"])
    command = ("batch", text_store, table, "--out", tmp_path / "out", "--embedding")
    assert run(*command)[0] == 0
    monkeypatch.setenv(f"MASS_{setting.upper()}", other)
    code, _, errors = run(*command)
    assert (code, f"begun with {setting} {first}, and this run has {other}" in errors) == (1, True), errors


@pytest.mark.parametrize(("inputs", "flags"), [("t.parquet", ()), ("t.jsonl", ("--format", "parquet"))])
def test_parquet_needs_an_extra(
    built_of_all: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: str, flags: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / inputs).write_bytes(b'"x.png"\n')
    code, _, errors = run("batch", built_of_all, tmp_path / inputs, "--out", tmp_path / "out", *flags)
    assert code == 2
    assert errors == "error: Parquet needs the package pyarrow: pip install 'mass-serve[batch]'\n"


def test_a_store_that_changes_meanwhile(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ends with the revision that it began with."""
    write_images(tmp_path / "in", 3)
    manifest = store / "manifest.json"
    before = json.loads(manifest.read_text())["store_revision"]
    real = run_job

    def changing(*args: Any) -> Any:
        manifest.write_text(manifest.read_text().replace(before, "0123456789ab"))
        return real(*args)

    monkeypatch.setattr(jobs, "run_job", changing)
    code, _, errors = run("batch", store, tmp_path / "in", "--out", tmp_path / "out")
    assert code == 0
    sentence = f"all results are of its revision {before}, and it is at 0123456789ab now"
    assert sentence in errors
    monkeypatch.setattr(jobs, "run_job", real)
    code, _, errors = run("batch", store, tmp_path / "in", "--out", tmp_path / "out")
    assert code == 1
    assert f"begun with store_revision {before}, and this run has 0123456789ab: name another" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_told_to_end_says_how_it_goes_on(
    built_of_all: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (path,) = write_images(tmp_path, 1)
    table = write_lines(tmp_path / "t.jsonl", [path.name] * 50_000)
    out = tmp_path / "out"
    command = (
        sys.executable,
        "-m",
        "mass_serve.cli",
        "batch",
        str(built_of_all),
        str(table),
        "--out",
        str(out),
    )
    # Shells start what runs in the background with SIGINT ignored, and these tests may run there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    finally:
        signal.signal(signal.SIGINT, before)
    _wait_for_answers(out, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, errors
    assert errors == f"error: stopped; what is done is in {out}: give the same command again to go on\n"


def _wait_for_answers(out: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"file:{out}/_job.sqlite?mode=ro", uri=True)) as it,
        ):
            if it.execute("SELECT COUNT(*) FROM answered").fetchone()[0]:
                return
        time.sleep(0.05)
    pytest.fail("the job answers nothing")


def test_classify_takes_a_folder(built_of_all: Path, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 40)
    paths[3].write_bytes(b"broken")
    (tmp_path / "empty").mkdir()
    first, *_ = write_images(tmp_path / "more", 1)
    given = (first, tmp_path / "in", tmp_path / "empty", first)
    code, output, errors = run("classify", *given, "--store", built_of_all)
    expected = [str(path) for path in [first, *paths[:3], *paths[4:], first]]
    assert code == 1
    assert [line.split("\t")[0] for line in output.splitlines()] == expected
    assert f"error: {paths[3]}: This is not an image" in errors
    assert f"error: {tmp_path / 'empty'}: the folder holds no images" in errors
    code, output, _ = run("classify", *given, "--store", built_of_all, "--json")
    assert [one["image"] for one in json.loads(output)] == expected
    assert json.dumps(json.loads(output), indent=2) + "\n" == output
    code, output, _ = run("classify", tmp_path / "empty", "--store", built_of_all, "--json")
    assert (code, output) == (1, "[]\n")


def test_classify_has_a_line_for_a_name_of_two(built_of_all: Path, tmp_path: Path) -> None:
    [path] = write_images(tmp_path / "in", 1)
    path.rename(path.with_name("ü\nx\033[2J.png"))
    (path.with_name("a\tb.png")).write_bytes(b"broken")
    code, output, errors = run("classify", tmp_path / "in", "--store", built_of_all)
    [line] = output.splitlines()
    assert (code, line.split("\t")[0]) == (1, str(path.with_name(r"ü\nx\x1b[2J.png")))
    broken = path.with_name(r"a\tb.png")
    assert f"error: {broken}: This is not an image" in errors


def test_classify_takes_a_folder_of_texts(text_store: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(60):
        (tmp_path / "in" / f"{number:02d}.txt").write_text(f"w{5 + number} " * (1 + number * 7 % 20))
    code, output, errors = run("classify", "--text", "w5", tmp_path / "in", "--store", text_store, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert [one["source"] for one in found] == [
        None,
        *(str(tmp_path / "in" / f"{number:02d}.txt") for number in range(60)),
    ]
    assert found[2]["text"] == " ".join(["w6"] * 8)
