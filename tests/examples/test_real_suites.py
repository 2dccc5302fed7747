"""The suites of real encoders: what is in their folders. Nothing is fetched and nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from examples.real_demo import training as picture_training
from examples.suites import real, unseen
from examples.text_demo import training as text_training
from examples.text_demo.tasks import CHOSEN_ON, SAME_TEXTS, TASKS
from examples.text_demo.texts import Text, write_task


def quiet(_line: str) -> None:
    """No progress."""


@pytest.fixture(autouse=True)
def _nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(store: Path, *_inputs: object) -> Path:
        store.mkdir()
        return store

    def trained(task: Any, _pretrained: Path, out: Path, *_plan: object) -> Path:
        folder: Path = out / "tasks" / task.name
        return folder

    for training in (picture_training, text_training):
        monkeypatch.setattr(training, "build_store", built)
        monkeypatch.setattr(training, "make_task", trained)
        monkeypatch.setattr(training, "make_pretrained", lambda out: out / "pretrained")


def test_a_suite_of_texts_has_its_tasks_and_apart_from_them_those_it_does_not_know(tmp_path: Path) -> None:
    some = [Text("ab"[number % 2], str(number), number * "w") for number in range(20)]
    for task in (*TASKS, SAME_TEXTS, *CHOSEN_ON):
        write_task(tmp_path / "texts", task.name, some)
    store = real.make_real_text(tmp_path, quiet)
    assert store == tmp_path / "store"
    known, unknown = {task.name for task in (*TASKS, SAME_TEXTS)}, {task.name for task in CHOSEN_ON}
    assert {path.stem for path in (tmp_path / "evaluation").iterdir()} == known
    assert {path.stem for path in (tmp_path / "tuning").iterdir()} == known
    assert {path.stem for path in (tmp_path / "ood").iterdir()} == unknown
    row = json.loads((tmp_path / "ood" / "emoji.jsonl").read_text().splitlines()[0])
    assert row.keys() == {"text", "label"}


def test_a_suite_of_pictures_has_as_many_of_each_domain_that_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def animals(_raw: Path) -> Iterator[Image.Image]:
        return repeat(Image.new("L", (28, 28)), 7)

    monkeypatch.setattr(unseen, "PICTURES", 3)
    monkeypatch.setattr(real, "PICTURES", 3)
    monkeypatch.setattr(real, "silhouettes", animals)
    assert real.make_real_vision(tmp_path, quiet) == tmp_path / "store"
    domains = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "ood").iterdir()}
    assert domains == dict.fromkeys(("photographs", "noise", "gradients", "scribbles", "silhouettes"), 3)
