"""Whole scenes for the pretraining, from the ground and from above; none is a class of the task `aerial`."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from examples.demo_suite.aerial import ASPHALT, GRASS, ROOF, SAND, SOIL, TREES, WATER, Scene, across, land
from examples.demo_suite.canvas import (
    CANVAS_SIZE,
    Palette,
    Pixels,
    blend,
    clouds,
    grid,
    photograph,
    to_canvas,
    vary,
)
from examples.demo_suite.signs import SKY

DUSK = Palette((0.9, 1.12), (0.4, 0.9), (0.5, 1.0))
NIGHT = Palette((0.6, 0.8), (0.2, 0.8), (0.02, 0.2))
ROCK = Palette((0.0, 0.15), (0.0, 0.3), (0.25, 0.6))
SNOW = Palette((0.5, 0.65), (0.0, 0.12), (0.8, 1.0))
PANEL = Palette((0.6, 0.68), (0.4, 0.8), (0.15, 0.4))


def skyline(rng: np.random.Generator) -> Image.Image:
    """Towers with lit windows before the sky."""
    _, y = grid()
    canvas = to_canvas(blend(SKY.pick(rng), DUSK.pick(rng), y + 0.3))
    draw, left = ImageDraw.Draw(canvas), rng.uniform(-6, 0)
    while left < CANVAS_SIZE:
        width, top = rng.uniform(7, 15), rng.uniform(8, 46)
        draw.rectangle((left, top, left + width, CANVAS_SIZE), fill=ASPHALT.pick(rng))
        for row in np.arange(top + 3, CANVAS_SIZE, 6):
            draw.line((left + 2, row, left + width - 2, row), fill=vary((220, 200, 120), 35, rng))
        left += width + rng.uniform(0, 3)
    return canvas


def sky_with_clouds(rng: np.random.Generator) -> Image.Image:
    """White heaps before blue."""
    return to_canvas(blend(SKY.pick(rng), SNOW.pick(rng), 2 * clouds(rng, int(rng.integers(3, 7)))))


def sunset(rng: np.random.Generator) -> Image.Image:
    """A low sun over the dark sea or land."""
    x, y = grid()
    horizon = rng.uniform(0.05, 0.3)
    sky = blend(NIGHT.pick(rng), DUSK.pick(rng), 0.6 + y + 0.1 * clouds(rng, 4))
    sun = np.hypot(x - rng.uniform(-0.3, 0.3), y - horizon + rng.uniform(0, 0.2)) < rng.uniform(0.06, 0.14)
    picture = np.where(sun[..., None], (250, 220, 140), sky)
    return to_canvas(
        np.where(
            (y > horizon)[..., None], np.asarray(NIGHT.pick(rng)) + 10 * clouds(rng, 16)[..., None], picture
        )
    )


def stars(rng: np.random.Generator) -> Image.Image:
    """Points of light on a dark ground."""
    canvas = to_canvas(blend(NIGHT.pick(rng), NIGHT.pick(rng), 0.5 * (1 + clouds(rng, 3))))
    draw = ImageDraw.Draw(canvas)
    for x, y in rng.uniform(0, CANVAS_SIZE, (int(rng.integers(15, 50)), 2)):
        size = rng.uniform(0.3, 1.6)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=vary((235, 235, 215), 20, rng))
    return canvas


def mountains(rng: np.random.Generator) -> Image.Image:
    """Two ranges with snow on the peaks."""
    x, y = grid()
    picture = np.broadcast_to(np.asarray(SKY.pick(rng), dtype=np.float64), (*x.shape, 3))
    for base in (-0.1, 0.15):
        crest = base - 0.2 * clouds(rng, int(rng.integers(3, 6)))[0][None, :] * np.ones_like(y)
        rock = blend(SNOW.pick(rng), ROCK.pick(rng), (y - crest - rng.uniform(0.02, 0.12)) * 30)
        picture = np.where((y > crest)[..., None], rock + 12 * clouds(rng, 16)[..., None], picture)
    return to_canvas(picture)


def runway(rng: np.random.Generator) -> Image.Image:
    """A broad band of concrete with dashes, seen from above."""
    distance, along = across(rng, 0.0), across(rng, 0.0)
    picture = np.where((np.abs(distance) < rng.uniform(0.16, 0.26))[..., None], ASPHALT.pick(rng), land(rng))
    dashes = (np.abs(distance) < 0.03) & (np.sin(along * rng.uniform(30, 50)) > 0)
    return to_canvas(np.where(dashes[..., None], (235, 235, 230), picture))


def stadium(rng: np.random.Generator) -> Image.Image:
    """An oval track round a lawn."""
    x, y = grid()
    angle = rng.uniform(0, np.pi)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    far = np.hypot(u / rng.uniform(0.35, 0.48), v / rng.uniform(0.22, 0.32))
    picture = np.where((far < 1)[..., None], ROOF.pick(rng), land(rng))
    return to_canvas(np.where((far < rng.uniform(0.6, 0.8))[..., None], GRASS.pick(rng), picture))


def solar_farm(rng: np.random.Generator) -> Image.Image:
    """Rows of blue panels."""
    distance, along = across(rng, 0.0), across(rng, 0.0)
    panels = (np.sin(distance * rng.uniform(35, 60)) > -0.2) & (np.abs(along) < rng.uniform(0.2, 0.5))
    return to_canvas(np.where(panels[..., None], PANEL.pick(rng), land(rng)))


def archipelago(rng: np.random.Generator) -> Image.Image:
    """Many small islands in the sea."""
    height = clouds(rng, int(rng.integers(5, 9))) - rng.uniform(0.1, 0.4)
    shore = blend(WATER.pick(rng), SAND.pick(rng), height * 30)
    return to_canvas(
        shore + (np.asarray(TREES.pick(rng)) - shore) * np.clip(height * 30 - 2, 0, 1)[..., None]
    )


def railway(rng: np.random.Generator) -> Image.Image:
    """Rails on sleepers, seen from above."""
    distance, along = across(rng, 0.0), across(rng, 0.0)
    picture = np.where((np.abs(distance) < 0.14)[..., None], ROCK.pick(rng), land(rng))
    sleepers = (np.abs(distance) < 0.1) & (np.sin(along * rng.uniform(50, 80)) > 0.2)
    picture = np.where(sleepers[..., None], SOIL.pick(rng), picture)
    return to_canvas(np.where((np.abs(np.abs(distance) - 0.06) < 0.014)[..., None], (205, 205, 210), picture))


def dunes(rng: np.random.Generator) -> Image.Image:
    """Sand with curved, shaded ridges."""
    phase = rng.uniform(4, 9) * across(rng, 0.1) + 0.4 * clouds(rng, 4)
    return to_canvas(blend(SAND.pick(rng), SOIL.pick(rng), 0.8 * (phase - np.floor(phase))))


def glacier(rng: np.random.Generator) -> Image.Image:
    """Ice with dark cracks beside rock."""
    cracks = np.abs(np.sin(rng.uniform(20, 40) * across(rng, 0.05))) < 0.2
    ice = np.where(cracks[..., None], WATER.pick(rng), SNOW.pick(rng))
    return to_canvas(
        np.where((across(rng, 0.1) > 0.15)[..., None], ROCK.pick(rng), ice) + 8 * clouds(rng, 16)[..., None]
    )


def room(rng: np.random.Generator) -> Image.Image:
    """A wall, a floor and two boxes."""
    _, y = grid()
    canvas = to_canvas(blend(ROOF.pick(rng), SOIL.pick(rng), (y - rng.uniform(0.0, 0.3)) * 50))
    draw = ImageDraw.Draw(canvas)
    for _ in range(2):
        left, top, width = rng.uniform(0, 46), rng.uniform(8, 40), rng.uniform(10, 26)
        draw.rectangle((left, top, left + width, CANVAS_SIZE - rng.uniform(2, 14)), fill=ASPHALT.pick(rng))
        draw.rectangle((left + 2, top + 2, left + width - 2, top + 8), fill=DUSK.pick(rng))
    return canvas


SCENES: dict[str, Scene] = {
    "skyline": skyline,
    "sky": sky_with_clouds,
    "sunset": sunset,
    "stars": stars,
    "mountains": mountains,
    "runway": runway,
    "stadium": stadium,
    "solar_farm": solar_farm,
    "archipelago": archipelago,
    "railway": railway,
    "dunes": dunes,
    "glacier": glacier,
    "room": room,
}


def draw_scene(name: str, rng: np.random.Generator) -> Pixels:
    """One photograph of the named scene."""
    return photograph(SCENES[name](rng), rng, blur=(0.1, 1.3), noise=(0.0, 9.0))
