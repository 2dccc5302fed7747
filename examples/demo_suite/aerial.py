"""Patches of land from above: ground of some colour with what grows, flows or is built on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from examples.demo_suite.canvas import (
    CANVAS_SIZE,
    Palette,
    Pixels,
    Plane,
    blend,
    clouds,
    grid,
    photograph,
    to_canvas,
    vary,
)
from examples.demo_suite.request import Request

Scene = Callable[[np.random.Generator], Image.Image]

GRASS = Palette((0.18, 0.33), (0.2, 0.55), (0.3, 0.65))
SOIL = Palette((0.06, 0.13), (0.2, 0.55), (0.35, 0.7))
TREES = Palette((0.25, 0.38), (0.35, 0.7), (0.15, 0.4))
WATER = Palette((0.48, 0.62), (0.3, 0.75), (0.2, 0.55))
ASPHALT = Palette((0.0, 1.0), (0.0, 0.08), (0.3, 0.65))
ROOF = Palette((0.97, 1.08), (0.15, 0.65), (0.4, 0.85))
SAND = Palette((0.09, 0.14), (0.15, 0.4), (0.75, 0.95))


def land(rng: np.random.Generator) -> Plane:
    """Grass or soil with the unevenness of real ground: [H, W, 3] in 0..255."""
    kinds = (GRASS, SOIL)
    first, second = kinds[rng.integers(2)].pick(rng), kinds[rng.integers(2)].pick(rng)
    mixed = blend(first, second, 0.5 * (1 + clouds(rng, 3)) * rng.uniform(0.2, 0.8))
    return mixed + (rng.uniform(4, 16) * clouds(rng, 16))[..., None]


def across(rng: np.random.Generator, bend: float) -> Plane:
    """Signed distance from a line through the picture, bent by up to `bend`; the picture is 1 wide."""
    x, y = grid()
    angle = rng.uniform(0, 2 * np.pi)
    along, beside = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    swing = bend * np.sin(2 * np.pi * (rng.uniform(0.7, 1.3) * along + rng.uniform(0, 1)))
    distance: Plane = beside + swing + rng.uniform(-0.2, 0.2)
    return distance


def crowns(
    canvas: Image.Image, rng: np.random.Generator, centres: list[tuple[float, float]], size: float
) -> None:
    """Trees as discs, each with a shadow to one side."""
    draw = ImageDraw.Draw(canvas)
    colour = TREES.pick(rng)
    for x, y in centres:
        r = size * rng.uniform(0.8, 1.2)
        draw.ellipse((x - r + 1, y - r + 1, x + r + 1.5, y + r + 1.5), fill=vary((25, 35, 25), 12, rng))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=vary(colour, 22, rng))


def fields(rng: np.random.Generator) -> Image.Image:
    """Parcels of different crops with straight borders, some with furrows."""
    one, two = across(rng, 0.0), across(rng, 0.0)
    picture = blend(GRASS.pick(rng), SOIL.pick(rng), one * 60)
    picture = np.where((two > 0)[..., None], blend(SOIL.pick(rng), GRASS.pick(rng), one * 60), picture)
    furrows = np.sin(2 * np.pi * rng.uniform(6, 12) * one) * (two > 0 if rng.random() < 0.5 else two < 0)
    return to_canvas(picture + (rng.uniform(4, 18) * furrows + 6 * clouds(rng, 16))[..., None])


def forest(rng: np.random.Generator) -> Image.Image:
    """Trees without order all over, thinner in places."""
    canvas = to_canvas(land(rng) * 0.6)
    count = int(rng.integers(60, 150))
    crowns(canvas, rng, [tuple(p) for p in rng.uniform(-4, 68, (count, 2))], rng.uniform(3, 5))
    return canvas


def orchard(rng: np.random.Generator) -> Image.Image:
    """Trees in straight rows."""
    canvas = to_canvas(land(rng))
    angle, step = rng.uniform(0, np.pi), rng.uniform(9, 13)
    cos, sin = step * np.cos(angle), step * np.sin(angle)
    nodes = [(i, j) for i in range(-6, 7) for j in range(-6, 7)]
    centres = [
        (32 + cos * i - sin * j + rng.normal(0, 0.6), 32 + sin * i + cos * j + rng.normal(0, 0.6))
        for i, j in nodes
    ]
    crowns(canvas, rng, centres, step * rng.uniform(0.24, 0.34))
    return canvas


def river(rng: np.random.Generator) -> Image.Image:
    """Water that winds through the land, with darker banks."""
    distance, width = np.abs(across(rng, rng.uniform(0.06, 0.16))), rng.uniform(0.05, 0.13)
    picture = blend(WATER.pick(rng), TREES.pick(rng), (distance - width) * 40)
    picture = picture + (land(rng) - picture) * np.clip((distance - width - 0.04) * 30, 0, 1)[..., None]
    return to_canvas(picture)


def road(rng: np.random.Generator) -> Image.Image:
    """A straight road, sometimes with a crossing one and a pale line in the middle."""
    picture, colour, width = land(rng), ASPHALT.pick(rng), rng.uniform(0.04, 0.09)
    for _ in range(int(rng.integers(1, 3))):
        distance = np.abs(across(rng, rng.uniform(0.0, 0.015)))
        picture = picture + (np.asarray(colour) - picture) * np.clip((width - distance) * 60, 0, 1)[..., None]
        if rng.random() < 0.6:
            picture = picture + (np.asarray((225, 225, 215)) - picture) * (distance < 0.012)[..., None]
    return to_canvas(picture)


def houses(rng: np.random.Generator) -> Image.Image:
    """Roofs in a loose grid, each with a lit and a dark side and a shadow."""
    canvas = to_canvas(land(rng))
    draw = ImageDraw.Draw(canvas)
    step, roof = rng.uniform(17, 25), ROOF.pick(rng)
    for x in np.arange(rng.uniform(-4, 6), CANVAS_SIZE, step):
        for y in np.arange(rng.uniform(-4, 6), CANVAS_SIZE, step):
            if rng.random() < 0.85:
                w, h = rng.uniform(0.45, 0.65, 2) * step
                left, top = x + rng.uniform(0, 3), y + rng.uniform(0, 3)
                draw.rectangle((left + 2, top + 2, left + w + 2, top + h + 2), fill=(40, 42, 40))
                draw.rectangle((left, top, left + w, top + h), fill=vary(roof, 25, rng))
                draw.rectangle(
                    (left, top, left + w, top + h / 2), fill=vary([0.75 * c for c in roof], 15, rng)
                )
    return canvas


def lake(rng: np.random.Generator) -> Image.Image:
    """A closed body of water with a ragged shore."""
    x, y = grid()
    far = np.hypot(x - rng.uniform(-0.12, 0.12), (y - rng.uniform(-0.12, 0.12)) * rng.uniform(0.8, 1.3))
    shore = far + rng.uniform(0.06, 0.14) * clouds(rng, 5) - rng.uniform(0.2, 0.33)
    picture, water = land(rng), np.asarray(WATER.pick(rng))
    return to_canvas(picture + (water - picture) * np.clip(-shore * 40, 0, 1)[..., None])


def beach(rng: np.random.Generator) -> Image.Image:
    """Sea, foam, sand and then land, one beside the other."""
    distance = across(rng, rng.uniform(0.0, 0.05)) + 0.03 * clouds(rng, 6)
    width = rng.uniform(0.12, 0.28)
    picture = blend(WATER.pick(rng), SAND.pick(rng), distance * 50)
    picture = picture + 60 * (np.abs(distance) < rng.uniform(0.015, 0.03))[..., None]
    inland = np.clip((distance - width) * 40, 0, 1)[..., None]
    return to_canvas(picture + (land(rng) - picture) * inland + (6 * clouds(rng, 16))[..., None])


SCENES: dict[str, Scene] = {
    "fields": fields,
    "forest": forest,
    "orchard": orchard,
    "river": river,
    "road": road,
    "houses": houses,
    "lake": lake,
    "beach": beach,
}


def draw_patch(request: Request, rng: np.random.Generator) -> Pixels:
    """One aerial photograph of the named kind of land."""
    return photograph(SCENES[request.label](rng), rng, blur=(0.2, 1.2), noise=(1.0, 8.0))
