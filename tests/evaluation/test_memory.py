"""What an evaluation holds does not grow with its images."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.evaluation import files_of
from mass_serve.evaluation.answer_journal import AnswerJournal
from mass_serve.evaluation.data import EvaluationData, InputBatch, of_whole_inputs
from mass_serve.evaluation.figures import routed_figures
from mass_serve.evaluation.methods import Answer, RoutedTo
from mass_serve.evaluation.run import Run
from tests import tiny

IMAGES = 300


@dataclass(frozen=True)
class Constant:
    """Answers at once, so that twenty times the images take little time."""

    name: str = "constant"

    def answer(self, batch: InputBatch) -> list[Answer]:
        return [
            Answer(batch.task, (0,), 0.9, RoutedTo(batch.task, 0.5, (batch.task,), 2.0, 0.5))
            for _ in batch.ids
        ]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny.loaded_store(tasks=2), Execution.LOW_RANK, 1 << 30)


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[int], Path]:
    """Folders of so many images: links to one file."""

    def make(count: int) -> Path:
        root = tmp_path / f"{count} images"
        folder = root / "task0" / "class 0"
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(folder / "0.png")
        for number in range(1, count):
            os.link(folder / "0.png", folder / f"{number}.png")
        return root

    return make


def _peak_bytes(engine: Engine, folder: Path) -> int:
    """The most that Python held at once, from the list of images to the figures."""
    gc.collect()
    tracemalloc.start()
    labels = of_whole_inputs(engine.tasks)
    data = EvaluationData(folder, labels, files_of(engine))
    journal = AnswerJournal(data.database)
    Run(data, journal, lambda *_: None).answer(Constant(), data.tasks)
    figures = routed_figures(journal, "constant", "task0", None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert figures["images"] == data.count("task0")
    return peak


def test_twenty_times_the_images_need_no_more(engine: Engine, folder_of: Callable[[int], Path]) -> None:
    _peak_bytes(engine, folder_of(10))  # what is loaded once
    few_images, many_images = folder_of(IMAGES), folder_of(20 * IMAGES)
    # How many images are under way at the peak varies, by up to 100 kB; what grows with them is in all.
    few, many = (min(_peak_bytes(engine, folder) for _ in range(3)) for folder in (few_images, many_images))
    # One number for each further image would be more than 200 kB, one name more than 300.
    assert many - few < 150_000
