"""Painted shapes before any ground, for the pretraining; none of them is a class of the task `signs`."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from examples.demo_suite import shapes
from examples.demo_suite.aerial import land
from examples.demo_suite.canvas import (
    Colour,
    Palette,
    Pixels,
    Point,
    blend,
    clouds,
    photograph,
    place,
    to_canvas,
    vary,
)
from examples.demo_suite.signs import roadside

PAINT = Palette((0.0, 1.0), (0.0, 1.0), (0.1, 1.0))

OUTLINES: dict[str, list[Point]] = {
    "heart": shapes.HEART,
    "flower": shapes.FLOWER,
    "clover": shapes.CLOVER,
    "gear": shapes.GEAR,
    "drop": shapes.DROP,
    "crescent": shapes.CRESCENT,
    "ellipse": shapes.ELLIPSE,
    "pentagon": shapes.PENTAGON,
    "hexagon": shapes.HEXAGON,
    "semicircle": shapes.SEMICIRCLE,
    "plus": shapes.PLUS,
    "house": shapes.HOUSE,
    "bolt": shapes.BOLT,
    "bow_tie": shapes.BOW_TIE,
    "trapezoid": shapes.TRAPEZOID,
    "letter_l": shapes.LETTER_L,
    "letter_t": shapes.LETTER_T,
    "star_five": shapes.star(5, 0.45),
    "star_four": shapes.star(4, 0.4),
    "star_eight": shapes.star(8, 0.6),
}
GROUNDS = ("roadside", "plain", "blotched", "land")


def backdrop(name: str, rng: np.random.Generator) -> Image.Image:
    """The ground behind the shape."""
    if name == "roadside":
        return roadside(rng)
    if name == "land":
        return to_canvas(land(rng))
    if name == "plain":
        return to_canvas(blend(PAINT.pick(rng), (128, 128, 128), 0.2 * (1 + clouds(rng, 2))))
    return to_canvas(
        blend(PAINT.pick(rng), PAINT.pick(rng), 0.5 * (1 + clouds(rng, int(rng.integers(3, 9)))))
    )


def unlike(colour: Colour, rng: np.random.Generator) -> Colour:
    """A paint that differs from the colour by at least 120 levels over the three channels."""
    while True:
        other = PAINT.pick(rng)
        if sum(abs(a - b) for a, b in zip(colour, other, strict=True)) > 120:
            return other


def draw_object(name: str, ground: str, rng: np.random.Generator) -> Pixels:
    """One photograph of the shape: plain, with a border, or with another shape painted inside."""
    canvas = backdrop(ground, rng)
    draw = ImageDraw.Draw(canvas)
    centre = (rng.uniform(24, 40), rng.uniform(24, 40))
    radius, angle, squash = rng.uniform(13, 28), rng.uniform(-0.4, 0.4), rng.uniform(0.7, 1.0)
    under = canvas.getpixel((int(centre[0]), int(centre[1])))
    colour = unlike(tuple(int(c) for c in np.atleast_1d(under)), rng)  # type: ignore[arg-type]
    draw.polygon(place(OUTLINES[name], centre, radius, angle, squash), fill=colour)
    style = rng.integers(3)
    if style > 0:
        names = sorted(OUTLINES)
        inner = name if style == 1 else names[rng.integers(len(names))]
        size = 0.7 if style == 1 else 0.45
        draw.polygon(
            place(OUTLINES[inner], centre, radius * size, angle, squash),
            fill=vary(unlike(colour, rng), 5, rng),
        )
    return photograph(canvas, rng, blur=(0.0, 1.6), noise=(0.0, 10.0))
