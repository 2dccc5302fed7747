"""The further suites: honest splits, the same pictures every time, and what makes each suite hard."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples.demo_suite import fonts as suite_fonts
from examples.demo_suite import foundation_letters, models
from examples.demo_suite.encoder import save_encoder
from examples.demo_suite.finetuning import FinetuningPlan
from examples.demo_suite.fonts import fonts_for, glyph
from examples.demo_suite.gallery import EXAMPLES
from examples.demo_suite.tasks import TASKS as DEMO_TASKS
from examples.demo_suite.tasks import Task
from examples.suites import __main__ as command
from examples.suites import demo, near_duplicates, twenty_tasks, unseen
from examples.suites.demo import make_demo
from examples.suites.drawn import GALLERIES, SUITES, Suite, make_suite
from examples.suites.encoders import SHIPPED, shipped_encoder
from examples.suites.scripts import SCRIPTS
from mass_serve.engine import Engine
from mass_serve.evaluation import EvaluationData, files_of
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.store import Store
from tests.examples.drawing import each

NEW_TASKS = (*near_duplicates.TASKS[1:], *twenty_tasks.TASKS[8:])
ALPHABETS = {
    **SCRIPTS,
    "small_letters": near_duplicates.SMALL_LETTERS,
    "capitals": near_duplicates.CAPITALS,
    "lao": unseen.LAO,
}

each_new_task = each(NEW_TASKS)


def quiet(_line: str) -> None:
    """No progress."""


@each_new_task
def test_a_picture_is_the_same_every_time_and_differs_by_number_and_side(task: Task) -> None:
    label = task.labels[0]
    first = task.picture(label, "held_out", 3)
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, task.picture(label, "held_out", 3))
    assert not np.array_equal(first, task.picture(label, "held_out", 4))
    assert not np.array_equal(first, task.picture(label, "training", 3))


@each_new_task
def test_every_label_is_drawn_with_something_to_see(task: Task) -> None:
    pixels, labels = task.pictures("held_out", range(1))
    assert len(pixels) == len(labels) == len(set(task.labels))
    assert pixels.reshape(len(pixels), -1).std(axis=1).min() > 3


@pytest.mark.optional("fonts")
@pytest.mark.parametrize("name", ALPHABETS)
def test_letters_are_in_fonts_of_both_sides_and_no_two_of_a_font_are_alike(name: str) -> None:
    characters = ALPHABETS[name].characters
    training, held_out = (fonts_for(characters, split) for split in ("training", "held_out"))
    assert training
    assert held_out
    assert not {font.group for font in training} & {font.group for font in held_out}
    for font in (*training, *held_out):
        assert len({glyph(font, character).tobytes() for character in characters}) == len(characters)


@pytest.mark.parametrize("name", ALPHABETS)
def test_no_letter_is_one_that_the_encoders_were_pretrained_on(name: str) -> None:
    ranges = foundation_letters.SCRIPTS.values()
    characters = ALPHABETS[name].characters
    assert not any(first <= ord(character) <= last for first, last in ranges for character in characters)


@pytest.mark.parametrize("name", SUITES)
def test_no_two_galleries_of_a_suite_share_a_number(name: str) -> None:
    assert not set(GALLERIES["evaluation"]) & set(GALLERIES["tuning"])
    names = [task.name for task in SUITES[name].tasks]
    assert len(names) == len(set(names))


def test_there_are_twenty_tasks() -> None:
    assert len(twenty_tasks.TASKS) == 20


@pytest.mark.parametrize("numbers", GALLERIES.values(), ids=GALLERIES)
def test_the_tiles_of_both_label_sets_are_the_same_pictures(numbers: range) -> None:
    by_pattern, by_colour = near_duplicates.TASKS[-2:]
    first, second = (
        {picture.tobytes() for picture in task.pictures("held_out", numbers)[0]}
        for task in (by_pattern, by_colour)
    )
    assert first == second
    assert len(first) == len(numbers) * len(by_pattern.labels)


def test_the_two_hands_share_their_page_but_no_letter() -> None:
    small, capitals = near_duplicates.SMALL_LETTERS, near_duplicates.CAPITALS
    assert small.look == capitals.look
    assert not set(small.characters) & set(capitals.characters)


@pytest.mark.parametrize(
    "domain",
    [
        pytest.param(name, marks=pytest.mark.optional("fonts")) if name == "lao" else name
        for name in unseen.DOMAINS
    ],
)
def test_unseen_pictures_are_the_same_every_time_and_all_different(domain: str) -> None:
    drawn = [unseen.unseen(domain, number) for number in range(6)]
    assert all(picture.shape == (32, 32, 3) and picture.dtype == np.uint8 for picture in drawn)
    assert np.array_equal(drawn[0], unseen.unseen(domain, 0))
    assert not any(np.array_equal(one, other) for one, other in combinations(drawn, 2))


def test_no_task_is_an_unseen_domain() -> None:
    names = {task.name for suite in SUITES.values() for task in suite.tasks}
    assert not names & unseen.DOMAINS.keys()


def test_the_shipped_encoder_is_the_one_of_the_demo_store(tmp_path: Path) -> None:
    save_encoder(shipped_encoder(quiet), tmp_path)
    saved = Checkpoint.open(tmp_path)
    for name, stored in load_file(SHIPPED).items():
        assert torch.equal(saved.parameter(name), stored), name


@pytest.mark.optional("fonts")
def test_the_demo_is_tuned_on_pictures_that_do_not_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen, "PICTURES", 1)
    monkeypatch.setattr(demo, "TASKS", DEMO_TASKS[-2:])
    monkeypatch.setattr(demo, "TUNING", range(12, 14))
    monkeypatch.setattr(demo, "CREATED", {"few": range(2), "further": range(2)})
    store = Store.open(make_demo(tmp_path, quiet))
    tuning = {path.read_bytes() for path in (tmp_path / "tuning").rglob("*.png")}
    assert len(tuning) == 2 * sum(len(task.labels) for task in DEMO_TASKS[-2:])
    for shipped in (tmp_path / "evaluation", EXAMPLES / "images"):
        pictures = {path.read_bytes() for path in shipped.rglob("*.png")}
        assert pictures
        assert not tuning & pictures
    tasks = {task.name for task in store.manifest.tasks}
    assert {folder.name for folder in (tmp_path / "evaluation").iterdir()} == tasks


def test_every_suite_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("demo", "real_vision", "real_text", *SUITES))


@pytest.mark.optional("fonts")
def test_a_suite_is_made_whole_and_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "TRAINING_PER_LABEL", 5)
    monkeypatch.setattr(unseen, "PICTURES", 2)
    suite = Suite(near_duplicates.TASKS[-2:], shipped_encoder, FinetuningPlan(steps=2))
    store = Store.open(make_suite(suite, tmp_path, quiet))
    assert [task.name for task in store.manifest.tasks] == ["tiles_by_pattern", "tiles_by_colour"]
    labels = of_whole_inputs({task.name: task for task in store.manifest.tasks})
    files = files_of(Engine.load(store.files.url))
    for gallery, numbers in GALLERIES.items():
        data = EvaluationData(tmp_path / gallery, labels, files)
        assert {task: data.count(task) for task in data.tasks} == {
            name: len(labels[name].names) * len(numbers) for name in sorted(labels)
        }
    assert {path.parent.name for path in (tmp_path / "ood").glob("*/*.png")} == set(unseen.DOMAINS)

    lines: list[str] = []
    make_suite(suite, tmp_path, lines.append)
    assert not any("Fine-tuned" in line for line in lines)


def test_without_fonts_the_command_names_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite_fonts, "FONT_FOLDER", tmp_path)
    suite_fonts.installed_fonts.cache_clear()
    try:
        assert command.main(["near_duplicates", "--out", str(tmp_path / "out")]) == 2
    finally:
        suite_fonts.installed_fonts.cache_clear()
    assert "apt-get install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
