"""How a glyph is put on its ground: colours, uneven light, blur and noise. Each glyph domain has one look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from examples.demo_suite.canvas import (
    CANVAS_SIZE,
    Palette,
    Pixels,
    Plane,
    Range,
    clouds,
    grid,
    photograph,
    to_canvas,
)


@dataclass(frozen=True)
class Look:
    """Ranges that one picture's ground and ink are drawn from; strengths are in grey levels."""

    ground: Palette
    ink: Palette
    gradient: Range = (0.0, 25.0)
    blotches: Range = (0.0, 10.0)
    blur: Range = (0.0, 0.8)
    noise: Range = (1.0, 8.0)


@dataclass(frozen=True)
class Pose:
    """How far a glyph may be moved, turned, slanted and scaled."""

    angle: float = 0.14
    slant: float = 0.15
    shift: float = 4.0
    scale: Range = (0.75, 1.15)


PAPER = Look(
    ground=Palette((0.0, 1.0), (0.0, 0.08), (0.80, 1.0)), ink=Palette((0.55, 0.70), (0.0, 0.5), (0.0, 0.4))
)
PARCHMENT = Look(
    ground=Palette((0.07, 0.13), (0.25, 0.55), (0.65, 0.95)),
    ink=Palette((0.0, 0.08), (0.3, 0.8), (0.1, 0.4)),
    blotches=(10.0, 35.0),
)
CHALKBOARD = Look(
    ground=Palette((0.35, 0.60), (0.15, 0.55), (0.12, 0.38)),
    ink=Palette((0.0, 1.0), (0.0, 0.25), (0.70, 1.0)),
    blotches=(5.0, 25.0),
    noise=(4.0, 14.0),
)
SCAN = Look(
    ground=Palette((0.0, 1.0), (0.0, 0.02), (0.0, 0.10)),
    ink=Palette((0.0, 1.0), (0.0, 0.02), (0.75, 1.0)),
    gradient=(0.0, 6.0),
    blotches=(0.0, 4.0),
    blur=(0.5, 1.5),
    noise=(0.0, 5.0),
)


def pose_glyph(glyph: Image.Image, pose: Pose, rng: np.random.Generator) -> Plane:
    """The glyph turned, slanted, scaled and moved within `pose`: ink coverage in 0..1, canvas-sized."""
    angle, slant = rng.uniform(-pose.angle, pose.angle), rng.uniform(-pose.slant, pose.slant)
    scale = rng.uniform(*pose.scale)
    forward = scale * np.array(
        [[math.cos(angle), slant - math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    inverse = np.linalg.inv(forward)
    middle = np.full(2, CANVAS_SIZE / 2)
    offset = middle - inverse @ (middle + rng.uniform(-pose.shift, pose.shift, 2))
    coefficients = (*inverse[0], offset[0], *inverse[1], offset[1])
    posed = glyph.transform(glyph.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.asarray(posed, dtype=np.float64) / 255.0


def ground(look: Look, rng: np.random.Generator) -> Plane:
    """An empty ground of the look with its uneven light and blotches: [H, W, 3] in 0..255."""
    x, y = grid()
    direction, strength = rng.uniform(0, 2 * math.pi), rng.uniform(*look.gradient)
    light = strength * (math.cos(direction) * x + math.sin(direction) * y)
    light = light + rng.uniform(*look.blotches) * clouds(rng, int(rng.integers(3, 8)))
    return np.asarray(look.ground.pick(rng), dtype=np.float64) + light[..., None]


def write(ink: Plane, look: Look, rng: np.random.Generator) -> Pixels:
    """Ink coverage on a ground of the look, photographed: [32, 32, 3] in uint8."""
    below = ground(look, rng)
    ink_colour = np.asarray(look.ink.pick(rng), dtype=np.float64)
    share = ink[..., None] * rng.uniform(0.8, 1.0)
    return photograph(to_canvas(below + (ink_colour - below) * share), rng, look.blur, look.noise)
