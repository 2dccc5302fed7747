"""What a job holds does not grow with its inputs."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mass_serve.engine import AnyQuery, BatchReport, Engine
from mass_serve.jobs.results import folder
from tests.jobs.made import TEXTS, run, write_lines

FEW, MANY = 1_000, 16_000
PART_INPUTS = 300
# How many inputs are under way at the peak varies. A number for each further one would be more than that.
MOST_GROWTH = 25 * (MANY - FEW)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "PART_INPUTS", PART_INPUTS)


def _answers_at_once(engine: Engine, one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an engine answer everything as it answers one text, so that many take little time."""
    answers = engine.classify([one])

    def classify_batch(queries: Sequence[AnyQuery]) -> BatchReport:
        return BatchReport([*answers * len(queries)], {}, [], fallbacks=0)

    monkeypatch.setattr(engine, "classify_batch", classify_batch)


def peak(work: Callable[[], object]) -> int:
    """The most bytes that Python holds while work is done, beyond those that it held before."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_job_of_many_texts_holds_no_more_than_one_of_few(
    text_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answers_at_once(text_engine, "w5 w6", monkeypatch)
    tables = {
        count: write_lines(tmp_path / f"{count}.jsonl", (TEXTS[row % len(TEXTS)] for row in range(count)))
        for count in (100, FEW, MANY)
    }
    run([tables[100]], tmp_path / "warm", text_engine)
    few = peak(lambda: run([tables[FEW]], tmp_path / "few", text_engine))
    many = peak(lambda: run([tables[MANY]], tmp_path / "many", text_engine))
    assert many < few + MOST_GROWTH


def test_the_list_of_files_is_on_disk(
    text_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answers_at_once(text_engine, "w5 w6", monkeypatch)
    for count in (100, FEW, MANY):
        for row in range(count):
            place = tmp_path / f"{count}" / f"{row % 64}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{row:06d}.txt").write_text("w5 w6")
    run([tmp_path / "100"], tmp_path / "warm", text_engine)
    few = peak(lambda: run([tmp_path / f"{FEW}"], tmp_path / "few", text_engine))
    many = peak(lambda: run([tmp_path / f"{MANY}"], tmp_path / "many", text_engine))
    assert many < few + MOST_GROWTH
