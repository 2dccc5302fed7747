"""A run that was killed goes on, and a journal of another run is refused."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.evaluation import EvaluationData, EvaluationDataError, Options, data, files_of
from mass_serve.evaluation.data import InputBatch, of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.methods import Answer, Routed
from tests import tiny

IMAGES = 20  # of each of two tasks
BATCH = 8  # each half of a task is more than one batch


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny.loaded_store(tasks=2), Execution.LOW_RANK, 1 << 30)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "BATCH_INPUTS", BATCH)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for task in ("task0", "task1"):
        for number in range(IMAGES):
            path = tmp_path / "data" / task / f"class {number % 3}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


def _data(engine: Engine, folder: Path, journal: Path | None = None) -> EvaluationData:
    labels = of_whole_inputs(engine.tasks)
    return EvaluationData(folder, labels, files_of(engine), journal)


class KilledError(Exception):
    """Stands for a kill."""


@dataclass
class Killed:
    """A method that is killed at its third batch, and counts the images that it is asked."""

    inner: Routed
    batches_left: int
    asked: int = 0

    @property
    def name(self) -> str:
        return self.inner.name

    def answer(self, batch: InputBatch) -> list[Answer]:
        self.batches_left -= 1
        if self.batches_left < 0:
            raise KilledError
        self.asked += len(batch.ids)
        return self.inner.answer(batch)


def test_a_killed_run_goes_on_to_the_same_report(engine: Engine, folder: Path, tmp_path: Path) -> None:
    whole = evaluate(engine, _data(engine, folder))
    journal = tmp_path / "journal"
    first = Killed(Routed("mass", engine), batches_left=2)
    with pytest.raises(KilledError):
        evaluate(engine, _data(engine, folder, journal), options=Options(methods=[first]))
    second = Killed(Routed("mass", engine), batches_left=1000)
    resumed = evaluate(engine, _data(engine, folder, journal), options=Options(methods=[second]))
    assert first.asked > 0
    assert first.asked + second.asked == 2 * IMAGES
    assert json.dumps(resumed) == json.dumps(whole)


def test_a_search_that_was_killed_goes_on_too(engine: Engine, folder: Path, tmp_path: Path) -> None:
    def killed(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("searching task_arithmetic", 25):
            raise KilledError

    journal = tmp_path / "journal"
    with pytest.raises(KilledError):
        evaluate(engine, _data(engine, folder, journal), killed)
    resumed = evaluate(engine, _data(engine, folder, journal))
    assert json.dumps(resumed) == json.dumps(evaluate(engine, _data(engine, folder)))


def test_a_journal_of_other_images_is_refused(engine: Engine, folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    _data(engine, folder, journal)
    os.utime(folder / "task1" / "class 2" / "5.png", ns=(1, 1))
    with pytest.raises(EvaluationDataError, match=r"task1/class 2/5\.png differs"):
        _data(engine, folder, journal)


def test_a_journal_of_another_store_is_refused(engine: Engine, folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    evaluate(engine, _data(engine, folder, journal))
    newer = Engine(replace(tiny.loaded_store(tasks=2), store_revision="next"), Execution.LOW_RANK, 1 << 30)
    with pytest.raises(EvaluationDataError, match="store_revision tiny, and this run has next"):
        evaluate(newer, _data(newer, folder, journal))


def test_a_file_that_is_no_journal_is_refused(engine: Engine, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "figures.json"
    other.write_text("{}" * 1000)
    with pytest.raises(EvaluationDataError, match="cannot be used as a journal"):
        _data(engine, folder, other)
    assert other.read_text() == "{}" * 1000
