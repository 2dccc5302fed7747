"""Two digit domains: real scans of handwriting, and printed digits on cluttered signs in the street."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from examples.demo_suite.canvas import CANVAS_SIZE, Palette, Pixels, Plane, photograph, to_canvas
from examples.demo_suite.fonts import fonts_for, glyph, pick_font
from examples.demo_suite.looks import SCAN, Look, Pose, ground, pose_glyph
from examples.demo_suite.request import Request, Split

DIGIT_NAMES = {
    name: value
    for value, name in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    )
}
# The scans come in the order of their writers, so the last ones are by people whom training has not seen.
HELD_OUT_SCANS = 450

STREET = Look(
    ground=Palette((0.0, 1.0), (0.2, 0.9), (0.25, 0.9)),
    ink=Palette((0.0, 1.0), (0.0, 0.7), (0.0, 1.0)),
    gradient=(0.0, 70.0),
    blotches=(0.0, 30.0),
    blur=(0.2, 1.4),
    noise=(2.0, 10.0),
)


@cache
def scans(value: int, split: Split) -> npt.NDArray[np.float64]:
    """All real scans of one digit on one side of the split: [N, 8, 8] in 0..1."""
    data = load_digits()
    boundary = len(data.target) - HELD_OUT_SCANS
    side = slice(boundary, None) if split == "held_out" else slice(0, boundary)
    images: npt.NDArray[np.float64] = data.images[side][data.target[side] == value] / 16.0
    return images


def draw_scan(request: Request, rng: np.random.Generator) -> Pixels:
    """The real scan of that number."""
    choices = scans(DIGIT_NAMES[request.label], request.split)
    return scanned(Image.fromarray((255 * choices[request.number % len(choices)]).astype(np.uint8)), rng)


def scanned(scan: Image.Image, rng: np.random.Generator) -> Pixels:
    """A scan of 8 x 8 greys, enlarged and placed with a slight turn on a dark page."""
    page = Image.new("L", (CANVAS_SIZE, CANVAS_SIZE))
    page.paste(scan.resize((52, 52), Image.Resampling.BICUBIC), (6, 6))
    ink = pose_glyph(page, Pose(angle=0.12, slant=0.08, scale=(0.85, 1.1)), rng)
    below = ground(SCAN, rng)
    written = below + (np.asarray(SCAN.ink.pick(rng)) - below) * ink[..., None]
    return photograph(to_canvas(written), rng, SCAN.blur, SCAN.noise)


def contrasting_ink(
    ground_colour: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """A colour that can be read on the ground: drawn anew until the two differ by 75 grey levels."""
    weights = np.array([0.299, 0.587, 0.114])
    while True:
        colour = np.asarray(STREET.ink.pick(rng), dtype=np.float64)
        if abs(float(weights @ (colour - ground_colour))) > 75:
            return colour


def clutter(canvas: Image.Image, rng: np.random.Generator) -> None:
    """Edges, bars and plates around the sign."""
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 5)):
        x, y = rng.uniform(-8, CANVAS_SIZE, 2)
        width, height = rng.uniform(4, 36, 2)
        colour = STREET.ground.pick(rng)
        if rng.random() < 0.5:
            draw.rectangle((x, y, x + width, y + height), fill=colour)
        else:
            draw.line(
                (x, y, x + 2 * width - 36, y + 2 * height - 36), fill=colour, width=int(rng.integers(1, 5))
            )


def neighbour(side: int, split: Split, rng: np.random.Generator) -> Plane:
    """The ink of another digit of the house number, cut by the picture's left (-1) or right (1) edge."""
    font = pick_font(fonts_for("0123456789", split), rng)
    ink = pose_glyph(glyph(font, str(rng.integers(10))), Pose(scale=(0.8, 1.1)), rng)
    return np.roll(ink, side * int(rng.integers(30, 38)), axis=1) * _half(side)


def _half(side: int) -> Plane:
    """1 on the given side of the picture and 0 on the other: what rolled over the edge is dropped."""
    ticks = np.arange(CANVAS_SIZE)
    kept = ticks > CANVAS_SIZE // 2 if side > 0 else ticks < CANVAS_SIZE // 2
    return np.broadcast_to(kept.astype(np.float64), (CANVAS_SIZE, CANVAS_SIZE))


def draw_street(request: Request, rng: np.random.Generator) -> Pixels:
    """One printed digit in the middle of a cluttered coloured sign, often with neighbours at the edges."""
    canvas = to_canvas(ground(STREET, rng))
    clutter(canvas, rng)
    below = np.asarray(canvas, dtype=np.float64)
    middle = below[16:48, 16:48].mean(axis=(0, 1))
    font = pick_font(fonts_for("0123456789", request.split), rng)
    ink = pose_glyph(
        glyph(font, str(DIGIT_NAMES[request.label])), Pose(slant=0.2, shift=3.0, scale=(0.7, 1.1)), rng
    )
    for side in (-1, 1):
        if rng.random() < 0.5:
            ink = np.maximum(ink, neighbour(side, request.split, rng))
    written = below + (contrasting_ink(middle, rng) - below) * ink[..., None]
    return photograph(to_canvas(written), rng, STREET.blur, STREET.noise)
