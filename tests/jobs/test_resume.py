"""A job may be killed at any point: what it wrote in the end is what a job writes that nobody disturbs."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.jobs import InputsError, JobProgress, ResultsError, run_job
from mass_serve.jobs.results import Result, ResultsFolder, folder
from mass_serve.jobs.results.forms import write
from mass_serve.jobs.sources import Position
from mass_serve.model_store.storage.local import LocalFiles
from tests import tiny
from tests.imports import ROOT
from tests.jobs.job_process import PART_INPUTS
from tests.jobs.made import answers, image, job, rows_in, run, write_images, write_lines, write_tar


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "PART_INPUTS", PART_INPUTS)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with every kind of source, some of it broken."""
    root = tmp_path / "in"
    write_images(root / "a", 130)
    (root / "a" / "00007.png").write_bytes(b"broken")
    members = [(f"{number}.png", image(number)) for number in range(120)]
    cut = write_tar(root / "b.tar", members)
    cut.write_bytes(cut.read_bytes()[:-12_000])
    write_tar(root / "c.tar.gz", members[:60], "w:gz")
    rows: list[object] = [f"a/{number:05d}.png" for number in range(40)]
    write_lines(root / "d.jsonl", [*rows[:20], {"wrong": 1}, *rows[20:]])
    return root


def _rows(out: Path) -> list[dict[str, Any]]:
    parts = sorted(path.name for path in out.glob("part-*"))
    assert parts == [f"part-{number:06d}.jsonl" for number in range(len(parts))]
    return rows_in(out)


class _Process:
    """A job that another process runs."""

    def __init__(self, inputs: Path, out: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.job_process", str(inputs), str(out)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def answered(self) -> Iterator[int]:
        """Yields how many inputs have answers, as it says."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield int(line)

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.communicate()


def test_a_killed_job_goes_on_without_a_lost_or_doubled_row(
    engine: Engine, mixed: Path, tmp_path: Path
) -> None:
    expected = answers([mixed], tmp_path / "whole", engine)
    assert len(expected) > 300
    generator = random.Random(0)
    out, answered = tmp_path / "killed", 0
    while answered < len(expected) - 60:
        process = _Process(mixed, out)
        until = answered + generator.randrange(1, 120)
        for answered in process.answered():
            if answered >= until:
                break
        process.kill()
    run([mixed], out, engine)
    assert _rows(out) == expected


class KilledError(BaseException):
    """Stands for a kill, which nothing catches."""


@pytest.mark.parametrize("point", ["before the part", "in the part", "behind the part"])
def test_a_job_that_is_killed_while_it_writes_a_part(
    engine: Engine, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    expected = answers([mixed], tmp_path / "whole", engine)
    replace = os.replace
    times = 0

    def killed_writing(*args: Any) -> None:
        nonlocal times
        times += 1
        if times != 3 or point == "behind the part":
            write(*args)
        if times == 3 and point != "behind the part":
            if point == "in the part":
                args[1].write(b'{"id": "half a li')
            raise KilledError

    def killed_behind(*args: Any) -> None:
        replace(*args)
        if times == 3:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write", killed_writing)
        if point == "behind the part":
            patch.setattr(os, "replace", killed_behind)
        with pytest.raises(KilledError):
            run([mixed], tmp_path / "out", engine)
    run([mixed], tmp_path / "out", engine)
    assert _rows(tmp_path / "out") == expected


def test_answers_are_not_asked_for_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in", 120)
    asked = 0
    classify = engine.classify_batch

    def counting(queries: Any) -> Any:
        nonlocal asked
        asked += len(queries)
        if asked == 72:
            raise KilledError
        return classify(queries)

    monkeypatch.setattr(engine, "classify_batch", counting)
    with pytest.raises(KilledError):
        run([tmp_path / "in"], tmp_path / "out", engine)
    run([tmp_path / "in"], tmp_path / "out", engine)
    assert asked == 120 + 8, "the batch at which it was killed, and no other"
    told: list[JobProgress] = []
    run_job(engine, job([tmp_path / "in"], tmp_path / "out", engine), {"store_revision": "tiny"}, told.append)
    assert (asked, told) == (128, []), "what has ended is not begun again"


def test_progress_goes_up_to_the_whole(engine: Engine, mixed: Path, tmp_path: Path) -> None:
    told: list[JobProgress] = []
    done = run_job(engine, job([mixed], tmp_path / "out", engine), {"store_revision": "tiny"}, told.append)
    assert [one.inputs for one in told] == sorted(one.inputs for one in told)
    assert [one.bytes_read for one in told] == sorted(one.bytes_read for one in told)
    assert (told[-1].inputs, told[-1].failed) == (done.counts.inputs, done.counts.failed)
    assert told[-1].bytes_read == told[-1].bytes_total


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"top": 2}, "begun with top 1, and this run has 2"),
        ({"tasks": ("task0",)}, "begun with tasks None"),
        ({"embeds": True}, "begun with columns"),
        ({"answer": "each"}, "begun with answer best, and this run has each"),
    ],
)
def test_the_folder_of_another_job_is_refused(
    engine: Engine, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    write_images(tmp_path / "in", 3)
    run([tmp_path / "in"], tmp_path / "out", engine)
    with pytest.raises(ResultsError, match=f"has the results of another job, {words}"):
        run([tmp_path / "in"], tmp_path / "out", engine, **changes)
    assert len(_rows(tmp_path / "out")) == 3


def test_another_revision_of_the_store_is_refused(engine: Engine, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 3)
    run([tmp_path / "in"], tmp_path / "out", engine)
    with pytest.raises(ResultsError, match="begun with store_revision tiny, and this run has new"):
        run_job(engine, job([tmp_path / "in"], tmp_path / "out", engine), {"store_revision": "new"}, print)


def test_other_inputs_are_refused(engine: Engine, tmp_path: Path) -> None:
    (changed, *_) = write_images(tmp_path / "in", 3)
    run([tmp_path / "in"], tmp_path / "out", engine)
    changed.write_bytes(image(9) + b"longer")
    with pytest.raises(InputsError, match=r"not those that the job was begun with \(.*00000.png differs\)"):
        run([tmp_path / "in"], tmp_path / "out", engine)
    changed.write_bytes(image(0))
    write_images(tmp_path / "in", 1, first=7)
    with pytest.raises(InputsError, match="are not those that the job was begun with"):
        run([tmp_path / "in"], tmp_path / "out", engine)


def test_places_that_hold_no_job_are_refused(engine: Engine, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="is no folder"):
        run([tmp_path / "in"], tmp_path / "file", engine)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part-000000.jsonl").write_text("somebody's\n")
    with pytest.raises(ResultsError, match=r"has parts of results and no _job.sqlite"):
        run([tmp_path / "in"], tmp_path / "parts", engine)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "_job.sqlite").write_text("no database, but long enough to be taken for one" * 20)
    with pytest.raises(ResultsError, match="file is not a database"):
        run([tmp_path / "in"], tmp_path / "other", engine)


def test_a_folder_has_one_job_at_a_time(engine: Engine, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    with LocalFiles(tmp_path / "out").lock(), pytest.raises(ResultsError, match="another process is writing"):
        run([tmp_path / "in"], tmp_path / "out", engine)


def test_a_full_disk_loses_nothing(
    engine: Engine, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the files of results nor in the journal."""
    expected = answers([mixed], tmp_path / "whole", engine)
    out, times = tmp_path / "out", 0
    add = ResultsFolder.add

    def full(*args: Any) -> None:
        nonlocal times
        times += 1
        if times == 2:
            args[1].write(b"some of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*args)

    monkeypatch.setattr(folder, "write", full)
    sentence = "cannot be written to: No space left on device; what is done is kept: make room"
    with pytest.raises(ResultsError, match=sentence):
        run([mixed], out, engine)

    def full_journal(self: ResultsFolder, results: Any) -> None:
        nonlocal times
        times += 1
        if times == 6:
            pages = self._database.execute("PRAGMA page_count").fetchone()[0]
            self._database.execute(f"PRAGMA max_page_count = {pages}")
            results = [
                Result(one.at, [{**row, "error": "x" * 100_000} for row in one.rows], one.failed)
                for one in results
            ]
        add(self, results)

    monkeypatch.setattr(ResultsFolder, "add", full_journal)
    with pytest.raises(ResultsError, match="cannot be written to: database or disk is full"):
        run([mixed], out, engine)
    monkeypatch.setattr(ResultsFolder, "add", add)
    run([mixed], out, engine)
    assert _rows(out) == expected


@pytest.mark.optional("parquet")
def test_parquet_holds_what_lines_hold(engine: Engine, text_engine: Engine, tmp_path: Path) -> None:
    import pyarrow.parquet

    write_images(tmp_path / "in", 120)
    (tmp_path / "in" / "00003.png").write_bytes(b"broken")
    lines = answers([tmp_path / "in"], tmp_path / "lines", engine, embeds=True, top=2)
    run([tmp_path / "in"], tmp_path / "tables", engine, embeds=True, top=2, form="parquet")
    assert pyarrow.parquet.read_table(tmp_path / "tables").to_pylist() == lines
    table = write_lines(tmp_path / "t.jsonl", ["w5 w6 w7", "w9"])
    rows = answers([table], tmp_path / "entities", text_engine, tasks=("names",))
    run([table], tmp_path / "tokens", text_engine, tasks=("names",), form="parquet")
    assert pyarrow.parquet.read_table(tmp_path / "tokens").to_pylist() == rows


def test_a_part_is_not_begun_anew_when_its_journal_is_older(tmp_path: Path) -> None:
    """Positions of parts are those behind their last input, whatever lies between."""
    with ResultsFolder.opened(tmp_path / "out", "jsonl", ("id",), {}) as results:
        assert results.start == Position(0, 1, 0)
        results.add([_result(number, source=1 + number // 20) for number in reversed(range(PART_INPUTS + 5))])
        assert results.start == Position(PART_INPUTS, 3, 10)
        assert sorted(results.done) == list(range(PART_INPUTS, PART_INPUTS + 5))
        assert not results.has_ended
        results.end()
        assert results.has_ended
        assert (results.counts.inputs, results.counts.failed) == (PART_INPUTS + 5, 0)
    rows = [
        json.loads(line)["id"] for line in (tmp_path / "out" / "part-000000.jsonl").read_text().splitlines()
    ]
    assert rows == [str(number) for number in range(PART_INPUTS)]


def test_parts_are_written_in_their_order(tmp_path: Path) -> None:
    """Batches of many texts may have all of a part before all of the one before it."""
    first, second = range(PART_INPUTS), range(PART_INPUTS, 2 * PART_INPUTS)
    with ResultsFolder.opened(tmp_path / "out", "jsonl", ("id",), {}) as results:
        results.add([_result(number, source=1) for number in second])
        assert results.start == Position(0, 1, 0)
        results.add([_result(number, source=1) for number in first[1:]])
        assert not list((tmp_path / "out").glob("part-*"))
    with ResultsFolder.opened(tmp_path / "out", "jsonl", ("id",), {}) as results:
        assert len(results.done) == 2 * PART_INPUTS - 1
        results.add([_result(0, source=1)])
        assert results.start.number == 2 * PART_INPUTS
    assert [row["id"] for row in _rows(tmp_path / "out")] == [str(number) for number in [*first, *second]]


def _result(number: int, source: int) -> Result:
    return Result(Position(number, source, number % 20), [{"id": str(number)}], failed=False)


def test_rows_have_all_labels_of_a_task_that_gives_any_number(tmp_path: Path) -> None:
    engine = Engine(tiny.loaded_store(tasks=2, multi_label=(0,)), Execution.LOW_RANK, 1 << 30)
    write_images(tmp_path / "in", 12)
    rows = answers([tmp_path / "in"], tmp_path / "out", engine, answer="each", top=9, multi_label=True)
    of_many, of_one = rows[::2], rows[1::2]
    assert {len(row["labels"]) for row in of_many} != {1}
    for row in of_many:
        assert row["labels"] == [one for one in row["top"] if one["score"] >= 0.5]
    assert [row["labels"] for row in of_one] == [None] * 12
