"""The shipped demo says "none of these" of what no task covers, and believes its own pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from examples.demo_suite.calibrate import NUMBERS
from examples.demo_suite.gallery import EXAMPLES, FURTHER, GALLERIES
from examples.suites.drawn import GALLERIES as SUITE_GALLERIES
from mass_serve.engine import Engine
from mass_serve.server.startup import demo_store


def blank(colour: str) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def face() -> Image.Image:
    """A portrait that comes with matplotlib."""
    return Image.open(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(demo_store())


@pytest.mark.parametrize(
    "image",
    [blank("white"), blank("black"), blank("grey"), noise(), face()],
    ids=["white", "black", "grey", "noise", "face"],
)
def test_what_no_task_covers_is_unrouted(engine: Engine, image: Image.Image) -> None:
    assert engine.classify([image])[0].unrouted


def test_nearly_all_of_its_own_pictures_are_believed(engine: Engine) -> None:
    images = [Image.open(path).convert("RGB") for path in sorted((EXAMPLES / "images").glob("*/*/00.png"))]
    unrouted = sum(answer.unrouted for answer in engine.classify(images))
    assert unrouted <= 0.05 * len(images)


def test_nothing_else_is_measured_on_what_it_was_calibrated_on() -> None:
    others = [*GALLERIES.values(), *SUITE_GALLERIES.values()]
    assert all(set(NUMBERS).isdisjoint(numbers) for numbers in others)
    assert max(NUMBERS) < FURTHER
