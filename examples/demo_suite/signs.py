"""Road signs by a road: the shape, colours and symbol say which; light, angle, size and ground vary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from examples.demo_suite import shapes
from examples.demo_suite.canvas import (
    CANVAS_SIZE,
    Colour,
    Palette,
    Pixels,
    Point,
    blend,
    clouds,
    grid,
    photograph,
    place,
    to_canvas,
    vary,
)
from examples.demo_suite.request import Request

RED, WHITE, BLUE, BLACK, YELLOW = (190, 25, 35), (238, 238, 232), (20, 70, 165), (25, 25, 28), (240, 190, 20)

SKY = Palette((0.52, 0.65), (0.05, 0.5), (0.6, 1.0))
LAND = Palette((0.08, 0.38), (0.1, 0.6), (0.2, 0.6))


@dataclass(frozen=True)
class Layer:
    """One painted outline of a sign, its size as a share of the whole sign's."""

    outline: list[Point]
    colour: Colour
    size: float = 1.0


SIGNS: dict[str, tuple[Layer, ...]] = {
    "stop": (Layer(shapes.OCTAGON, RED), *(Layer(block, WHITE, 0.9) for block in shapes.LETTER_BLOCKS)),
    "no_entry": (Layer(shapes.CIRCLE, RED), Layer(shapes.BAR, WHITE, 0.9)),
    "yield": (Layer(shapes.TRIANGLE_DOWN, RED), Layer(shapes.TRIANGLE_DOWN, WHITE, 0.6)),
    "warning": (
        Layer(shapes.TRIANGLE, RED),
        Layer(shapes.TRIANGLE, WHITE, 0.7),
        Layer(shapes.EXCLAMATION, BLACK, 0.75),
    ),
    "no_vehicles": (Layer(shapes.CIRCLE, RED), Layer(shapes.CIRCLE, WHITE, 0.72)),
    "no_passing": (
        Layer(shapes.CIRCLE, RED),
        Layer(shapes.CIRCLE, WHITE, 0.72),
        Layer([(-0.55, -0.3), (-0.1, -0.3), (-0.1, 0.35), (-0.55, 0.35)], RED, 0.8),
        Layer([(0.1, -0.3), (0.55, -0.3), (0.55, 0.35), (0.1, 0.35)], BLACK, 0.8),
    ),
    "end_of_limits": (
        Layer(shapes.CIRCLE, BLACK),
        Layer(shapes.CIRCLE, WHITE, 0.9),
        Layer(shapes.SLASH, BLACK, 0.85),
    ),
    "priority": (
        Layer(shapes.DIAMOND, WHITE),
        Layer(shapes.DIAMOND, YELLOW, 0.75),
    ),
    "turn_left": (Layer(shapes.CIRCLE, BLUE), Layer(shapes.ARROW_LEFT, WHITE, 0.85)),
    "turn_right": (Layer(shapes.CIRCLE, BLUE), Layer(shapes.ARROW_RIGHT, WHITE, 0.85)),
    "straight_ahead": (Layer(shapes.CIRCLE, BLUE), Layer(shapes.ARROW_UP, WHITE, 0.85)),
    "parking": (Layer(shapes.SQUARE, BLUE), Layer(shapes.LETTER_P, WHITE, 0.9)),
}


def roadside(rng: np.random.Generator) -> Image.Image:
    """Sky above land with a slanted, ragged horizon, and a few dark trunks or bright walls."""
    x, y = grid()
    horizon = rng.uniform(-0.3, 0.4) + rng.uniform(-0.3, 0.3) * x + rng.uniform(0, 0.15) * clouds(rng, 8)
    scene = blend(SKY.pick(rng), LAND.pick(rng), (y - horizon) * 12)
    scene = scene + (rng.uniform(5, 30) * clouds(rng, int(rng.integers(4, 12))))[..., None]
    canvas = to_canvas(scene)
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 4)):
        left, top, width = rng.uniform(-5, 64), rng.uniform(0, 40), rng.uniform(2, 16)
        draw.rectangle((left, top, left + width, CANVAS_SIZE), fill=vary(LAND.pick(rng), 40, rng))
    return canvas


def paint(canvas: Image.Image, layers: tuple[Layer, ...], rng: np.random.Generator) -> None:
    """The sign on its pole, seen from somewhat aside, in the light of the day, its colours faded or dirty."""
    draw = ImageDraw.Draw(canvas)
    centre = (rng.uniform(26, 38), rng.uniform(26, 38))
    radius, angle, squash = rng.uniform(15, 27), rng.uniform(-0.16, 0.16), rng.uniform(0.7, 1.0)
    draw.line((*centre, centre[0], CANVAS_SIZE), fill=vary((120, 120, 120), 40, rng), width=3)
    light, fading = rng.uniform(0.45, 1.05), rng.uniform(0.0, 0.35)
    for layer in layers:
        colour = [light * (c + fading * (150 - c)) for c in vary(layer.colour, 20, rng)]
        outline = place(layer.outline, centre, radius * layer.size, angle, squash)
        draw.polygon(outline, fill=vary(colour, 6, rng))


def draw_sign(request: Request, rng: np.random.Generator) -> Pixels:
    """One photograph of the named sign."""
    canvas = roadside(rng)
    paint(canvas, SIGNS[request.label], rng)
    return photograph(canvas, rng, blur=(0.3, 1.6), noise=(1.0, 9.0))
