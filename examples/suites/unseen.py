"""Pictures that no task of any suite covers, to measure whether an answer says "none of these"."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from examples.demo_suite.canvas import (
    CANVAS_SIZE,
    IMAGE_SIZE,
    Palette,
    Pixels,
    blend,
    grid,
    photograph,
    to_canvas,
)
from examples.demo_suite.letters import Script
from examples.demo_suite.looks import Look
from examples.demo_suite.request import Request
from examples.suites.scripts import named

PICTURES = 200

ANY_COLOUR = Palette((0.0, 1.0), (0.0, 1.0), (0.1, 1.0))
PINK_PAPER = Look(Palette((0.88, 0.98), (0.15, 0.4), (0.8, 1.0)), Palette((0.3, 0.5), (0.3, 0.9), (0.1, 0.5)))
LAO = Script(named("ກຂຄງຈຊຍດຕທນບ"), PINK_PAPER)


@cache
def photographs() -> tuple[Image.Image, ...]:
    """The two photographs that come with scikit-learn: a temple and a flower."""
    return tuple(Image.fromarray(pixels) for pixels in load_sample_images().images)


def letter(rng: np.random.Generator) -> Pixels:
    """A letter of a script that neither a task nor the pretraining has, in its own look."""
    names = tuple(LAO.letters)
    return LAO.draw(Request(names[rng.integers(len(names))], "held_out", 0), rng)


def photograph_patch(rng: np.random.Generator) -> Pixels:
    """A square cut from a real photograph."""
    source = photographs()[rng.integers(len(photographs()))]
    side = int(rng.integers(2 * IMAGE_SIZE, 8 * IMAGE_SIZE))
    left, top = int(rng.integers(source.width - side)), int(rng.integers(source.height - side))
    patch = source.crop((left, top, left + side, top + side))
    return np.asarray(patch.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))


def noise(rng: np.random.Generator) -> Pixels:
    """Every pixel of a colour of its own."""
    return rng.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)


def gradient(rng: np.random.Generator) -> Pixels:
    """One colour that turns into another from edge to edge."""
    x, y = grid()
    angle = rng.uniform(0, 2 * np.pi)
    share = 0.5 + np.cos(angle) * x + np.sin(angle) * y
    return photograph(to_canvas(blend(ANY_COLOUR.pick(rng), ANY_COLOUR.pick(rng), share)), rng)


def scribble(rng: np.random.Generator) -> Pixels:
    """A sketch of coloured pens on white: arcs and lines that mean nothing."""
    canvas = Image.new("RGB", (CANVAS_SIZE, CANVAS_SIZE), (250, 250, 250))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(4, 10)):
        left, top, width, height = rng.uniform((-8, -8, 12, 12), (40, 40, 40, 40))
        box, pen = (left, top, left + width, top + height), ANY_COLOUR.pick(rng)
        if rng.random() < 0.5:
            draw.line(box, fill=pen, width=int(rng.integers(1, 5)))
        else:
            draw.arc(box, rng.uniform(0, 360), rng.uniform(360, 720), fill=pen, width=int(rng.integers(1, 5)))
    return photograph(canvas, rng, blur=(0.0, 0.6), noise=(0.0, 4.0))


DOMAINS: dict[str, Callable[[np.random.Generator], Pixels]] = {
    "lao": letter,
    "photographs": photograph_patch,
    "noise": noise,
    "gradients": gradient,
    "scribbles": scribble,
}


def unseen(domain: str, number: int) -> Pixels:
    """The picture of a domain with this number, the same on every call."""
    return DOMAINS[domain](np.random.default_rng([zlib.crc32(domain.encode()), number]))


def write_unseen(folder: Path, domains: Iterable[str] = DOMAINS) -> None:
    """PICTURES of each domain as folder/<domain>/<number>.png."""
    for domain in domains:
        (folder / domain).mkdir(parents=True, exist_ok=True)
        for number in range(PICTURES):
            Image.fromarray(unseen(domain, number)).save(folder / domain / f"{number:03}.png")
