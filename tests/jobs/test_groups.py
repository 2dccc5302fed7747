"""Groups in jobs: inputs that follow each other with one group are of one task, and judged together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mass_serve.engine import Engine
from mass_serve.inputs.images import ImageLimits, decode_image
from mass_serve.inputs.texts import Tokens
from mass_serve.jobs import InputsError, JobError, JobInput, Position
from mass_serve.jobs.batches import BatchLimits, Ready
from mass_serve.jobs.groups import batches_of_groups, runs_in
from mass_serve.jobs.results import folder
from tests.jobs import made
from tests.jobs.made import BATCH, answers, rows_in, run, write_images, write_lines

LIMITS = ImageLimits(max_pixels=1_000_000)


def ready(number: int, group: str | None, length: int = 1) -> Ready:
    one = JobInput(str(number), "text", Position(number), group=group)
    return Ready(one, Tokens(np.zeros((length, 2), np.int64), cut=0))


@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.integers(1, 9)), max_size=60), st.integers(0, 60)
)
def test_a_job_that_goes_on_has_the_same_runs(told: list[tuple[str | None, int]], after: int) -> None:
    inputs = [ready(number, *one) for number, one in enumerate(told)]
    limits = BatchLimits(inputs=5, tokens=24)

    def runs(some: Sequence[Ready]) -> list[list[int]]:
        found = [run for batch in batches_of_groups(some, limits) for run in runs_in(batch)]
        return [[one.input.at.number for one in run] for run in found]

    whole = runs(inputs)
    assert [number for run in whole for number in run] == list(range(len(told)))
    assert all(len({told[number][0] for number in run}) == 1 for run in whole)
    done = [number for batch in list(batches_of_groups(inputs, limits))[:after] for number in _numbers(batch)]
    rest = [one for one in inputs if one.input.at.number not in set(done)]
    assert runs(rest) == [run for run in whole if run[0] not in set(done)]


def _numbers(batch: Sequence[Ready]) -> list[int]:
    return [one.input.at.number for one in batch]


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.integers(1, 9)), max_size=60))
def test_no_batch_is_larger_than_it_may_be(told: list[tuple[str | None, int]]) -> None:
    limits = BatchLimits(inputs=5, tokens=24)
    for batch in batches_of_groups((ready(number, *one) for number, one in enumerate(told)), limits):
        assert len(batch) <= 5
        assert len(batch) * max(one.length for one in batch) <= 24


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 90 images, in groups of one to twenty, and some of no group."""
    paths = write_images(tmp_path / "images", 90)
    groups = ["a"] * 5 + [None] * 3 + ["b"] * 20 + ["c"] * 2 + ["a"] * 30 + ["d"] * 30
    rows = [
        {"image": str(path.relative_to(tmp_path)), "camera": group}
        for path, group in zip(paths, groups, strict=True)
    ]
    return write_lines(tmp_path / "table.jsonl", rows)


def test_rows_of_a_group_have_the_answers_of_one_request(engine: Engine, table: Path, tmp_path: Path) -> None:
    rows = answers([table], tmp_path / "out", engine, group="camera")
    given = [json.loads(line) for line in table.read_text().splitlines()]
    assert len(rows) == len(given)
    at = 0
    for group, members in groupby(given, key=lambda row: row["camera"]):
        images = [decode_image((tmp_path / one["image"]).read_bytes(), LIMITS) for one in members]
        for start in range(0, len(images), BATCH if group else 1):
            some = images[start : start + (BATCH if group else 1)]
            for answer in engine.classify(some, same_task=True):
                assert (rows[at]["task"], rows[at]["part"]) == (answer.task, answer.part)
                assert rows[at]["score"] == pytest.approx(float(answer.probabilities.max()), abs=1e-6)
                at += 1


@pytest.mark.parametrize("batches", [1, 3, 6])
def test_a_job_that_was_killed_writes_the_same_bytes(
    engine: Engine, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.setattr(folder, "PART_INPUTS", 20)
    run([table], tmp_path / "whole", engine, group="camera")
    left, classify = batches, engine.classify_batch

    def failing(queries: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return classify(queries)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "classify_batch", failing)
        with pytest.raises(KeyboardInterrupt):
            run([table], tmp_path / "killed", engine, group="camera")
    run([table], tmp_path / "killed", engine, group="camera")
    names = sorted(path.name for path in (tmp_path / "whole").glob("part-*"))
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_job_is_not_gone_on_with_where_its_runs_would_be_others(
    table: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([table], tmp_path / "out", engine, group="camera")
    monkeypatch.setattr(made, "BATCH", BATCH + 1)
    with pytest.raises(JobError, match=f"begun with batch_inputs {BATCH}, and this run has {BATCH + 1}"):
        run([table], tmp_path / "out", engine, group="camera")


def test_files_of_one_folder_are_a_group(engine: Engine, tmp_path: Path) -> None:
    for name, count in (("x", 3), ("y", 4)):
        write_images(tmp_path / "in" / name, count, first=10 * count)
    answers([tmp_path / "in"], tmp_path / "out", engine, by_folder=True)
    rows = rows_in(tmp_path / "out")
    for name in ("x", "y"):
        paths = sorted((tmp_path / "in" / name).iterdir())
        images = [decode_image(path.read_bytes(), LIMITS) for path in paths]
        expected = [(one.task, one.part) for one in engine.classify(images, same_task=True)]
        assert [(row["task"], row["part"]) for row in rows if f"{name}/" in row["id"]] == expected


def test_texts_have_groups_too(text_engine: Engine, tmp_path: Path) -> None:
    lines = [{"text": f"w{10 + number} w{20 + number}", "session": number // 3} for number in range(9)]
    rows = answers([write_lines(tmp_path / "t.jsonl", lines)], tmp_path / "out", text_engine, group="session")
    for start in range(0, 9, 3):
        texts = [str(one["text"]) for one in lines[start : start + 3]]
        expected = [one.task for one in text_engine.classify(texts, same_task=True)]
        assert [row["task"] for row in rows[start : start + 3]] == expected


@pytest.mark.optional("parquet")
def test_a_column_that_parquet_has_not_is_told(engine: Engine, tmp_path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": [b"1"]}), tmp_path / "t.parquet")
    with pytest.raises(InputsError, match=r"no column 'camera'.*--group-column"):
        run([tmp_path / "t.parquet"], tmp_path / "out", engine, group="camera")
