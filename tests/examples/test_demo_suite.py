"""The demo's pictures: the same every time, drawn from sources that training has not seen, and as shipped."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.demo_suite import fonts as suite_fonts
from examples.demo_suite import (
    foundation_letters,
    foundation_objects,
    foundation_scenes,
    foundation_surfaces,
    train,
)
from examples.demo_suite.digits import DIGIT_NAMES, scans
from examples.demo_suite.encoder import new_encoder, swift_activations, to_input, token_and_embedding
from examples.demo_suite.fonts import FontFile, fonts_for, glyph, installed_fonts
from examples.demo_suite.gallery import EXAMPLES, FURTHER, GALLERIES
from examples.demo_suite.request import Split
from examples.demo_suite.tasks import DEVANAGARI, GREEK, HEBREW, TASKS, Task
from tests.examples.drawing import each

BYTES_ALLOWED = 3_000_000
CHARACTERS = (GREEK.characters, HEBREW.characters, DEVANAGARI.characters, "0123456789")

each_task = each(TASKS)


def shipped(gallery: str) -> list[Path]:
    """All pictures of one of the shipped folders."""
    return sorted((EXAMPLES / gallery).glob("*/*/*.png"))


@each_task
def test_a_picture_is_the_same_every_time_and_differs_by_number_and_side(task: Task) -> None:
    label = task.labels[-1]
    first = task.picture(label, "held_out", 3)
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, task.picture(label, "held_out", 3))
    assert not np.array_equal(first, task.picture(label, "held_out", 4))
    assert not np.array_equal(first, task.picture(label, "training", 3))


@each_task
def test_every_label_is_drawn_with_something_to_see(task: Task) -> None:
    pixels, labels = task.pictures("held_out", range(FURTHER, FURTHER + 2))
    assert len(pixels) == len(labels) == 2 * len(task.labels)
    assert pixels.reshape(len(pixels), -1).std(axis=1).min() > 3


@pytest.mark.optional("fonts")
def test_no_font_is_on_both_sides_of_the_split() -> None:
    sides: dict[Split, set[FontFile]] = {"training": set(), "held_out": set()}
    for font in installed_fonts():
        sides[font.split].add(font)
    for attribute in ("path", "family", "group"):
        training, held_out = ({getattr(font, attribute) for font in side} for side in sides.values())
        assert training
        assert held_out
        assert not training & held_out


@pytest.mark.optional("fonts")
@pytest.mark.parametrize("characters", CHARACTERS)
@pytest.mark.parametrize("split", ["training", "held_out"])
def test_every_glyph_has_ink_and_no_two_of_a_font_are_alike(characters: str, split: Split) -> None:
    fonts = fonts_for(characters, split)
    assert fonts
    for font in fonts:
        # A font draws every character that it lacks as the same box.
        drawn = {glyph(font, character).tobytes() for character in characters}
        assert len(drawn) == len(characters), font.path.name
        assert all(max(ink) > 128 for ink in drawn), font.path.name


def test_no_scan_is_on_both_sides_of_the_split() -> None:
    for value in DIGIT_NAMES.values():
        training, held_out = (
            {s.tobytes() for s in scans(value, split)} for split in ("training", "held_out")
        )
        assert len(held_out) > 30
        assert not training & held_out


def test_the_pretraining_has_no_class_of_a_task() -> None:
    labels = {label for task in TASKS for label in task.labels}
    for names in (foundation_objects.OUTLINES, foundation_scenes.SCENES, foundation_surfaces.PATTERNS):
        assert not labels & set(names)
    for first, last in foundation_letters.SCRIPTS.values():
        assert not any(
            first <= ord(character) <= last for characters in CHARACTERS for character in characters
        )


@pytest.mark.parametrize("gallery", GALLERIES)
def test_the_shipped_folders_are_the_tasks_and_labels(gallery: str) -> None:
    found = {(path.parent.parent.name, path.parent.name) for path in shipped(gallery)}
    assert found == {(task.name, label) for task in TASKS for label in task.labels}


def test_the_shipped_pictures_are_small_rgb_files_and_all_different() -> None:
    paths = [path for gallery in GALLERIES for path in shipped(gallery)]
    assert sum(path.stat().st_size for path in paths) <= BYTES_ALLOWED
    digests = set()
    for path in paths:
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((32, 32), "RGB")
            digests.add(hashlib.sha256(picture.tobytes()).hexdigest())
    assert len(digests) == len(paths)


@each_task
def test_the_shipped_pictures_are_what_the_generators_draw(task: Task) -> None:
    number = GALLERIES["evaluation"][0]
    for label in task.labels[:2]:
        with Image.open(EXAMPLES / "evaluation" / task.name / label / f"{number:02}.png") as picture:
            difference = np.abs(np.asarray(picture, dtype=int) - task.picture(label, "held_out", number))
        # Another version of the font library or of Pillow may move an edge by a little.
        assert difference.mean() < 4


def test_the_training_pass_is_the_encoders_own() -> None:
    torch.manual_seed(0)
    encoder = new_encoder()
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = encoder(pixel_values=to_input(pixels)).image_embeds
        with swift_activations(encoder):
            _, embedding = token_and_embedding(encoder, pixels)
        after = encoder(pixel_values=to_input(pixels)).image_embeds
    torch.testing.assert_close(embedding, expected)
    assert torch.equal(after, expected)


def test_without_fonts_the_command_names_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite_fonts, "FONT_FOLDER", tmp_path)
    suite_fonts.installed_fonts.cache_clear()
    try:
        assert train.main(["--out", str(tmp_path / "out")]) == 2
    finally:
        suite_fonts.installed_fonts.cache_clear()
    message = capsys.readouterr().err
    assert "apt-get install" in message
    assert "fonts-noto-core" in message
    assert not (tmp_path / "out").exists()
