"""Painted surfaces: ten patterns in muted colours, at any angle and several scales, under uneven light."""

# All patterns are called alike, though not each of them needs every argument.
# ruff: noqa: ARG001

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from examples.demo_suite.canvas import (
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

Pattern = Callable[[Plane, Plane, np.random.Generator], Plane]

TAU = 2 * np.pi
SURFACE = Palette((0.0, 1.0), (0.1, 0.5), (0.3, 0.85))


def soft(signal: Plane, sharpness: float = 4.0) -> Plane:
    """A signed signal as a share in 0..1 with soft edges."""
    share: Plane = 0.5 + 0.5 * np.tanh(sharpness * signal)
    return share


def triangle_wave(x: Plane) -> Plane:
    """A wave of straight lines, period 1, in [-1, 1]."""
    wave: Plane = 4 * np.abs(x - np.floor(x + 0.5)) - 1
    return wave


def cell(x: Plane) -> Plane:
    """Position within a cell of width 1, in [-0.5, 0.5]."""
    position: Plane = x - np.round(x)
    return position


def stripes(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Parallel bands."""
    return soft(np.sin(TAU * u) + rng.uniform(-0.4, 0.4))


def checker(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Squares that alternate both ways."""
    return soft(np.sin(np.pi * u) * np.sin(np.pi * v), 8.0)


def dots(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Discs in rows."""
    return soft(rng.uniform(0.25, 0.36) - np.hypot(cell(u), cell(v)), 16.0)


def waves(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Bands that swing as a sine."""
    return soft(np.sin(TAU * (u + rng.uniform(0.3, 0.45) * np.sin(TAU * 0.6 * v))))


def zigzag(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Bands that turn at sharp corners."""
    return soft(np.sin(TAU * (u + rng.uniform(0.4, 0.6) * triangle_wave(0.5 * v))), 6.0)


def bricks(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Courses of bricks, each moved by half a brick, with thin mortar."""
    shifted = 0.5 * u + 0.5 * (np.floor(v) % 2)
    mortar = np.minimum(2 * np.abs(cell(shifted)), np.abs(cell(v)))
    return soft(mortar - rng.uniform(0.08, 0.14), 16.0)


def lattice(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Thin lines that cross."""
    line = np.minimum(np.abs(cell(u)), np.abs(cell(v)))
    return soft(rng.uniform(0.08, 0.14) - line, 16.0)


def rings(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Circles round one point in or near the picture."""
    return soft(np.sin(TAU * np.hypot(u - rng.uniform(-1.5, 1.5), v - rng.uniform(-1.5, 1.5))))


def weave(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """A basket: cells of horizontal strands beside cells of vertical ones."""
    across = (np.floor(0.7 * u) + np.floor(0.7 * v)) % 2
    return soft(np.where(across > 0, np.sin(TAU * 1.4 * u), np.sin(TAU * 1.4 * v)))


def marble(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Soft blobs without order."""
    return soft(clouds(rng, int(rng.integers(4, 9))), 2.5)


PATTERNS: dict[str, Pattern] = {
    "stripes": stripes,
    "checker": checker,
    "dots": dots,
    "waves": waves,
    "zigzag": zigzag,
    "bricks": bricks,
    "lattice": lattice,
    "rings": rings,
    "weave": weave,
    "marble": marble,
}


def turned_grid(rng: np.random.Generator, cycles: tuple[float, float]) -> tuple[Plane, Plane]:
    """Coordinates in periods of the pattern, turned and moved at random."""
    x, y = grid()
    angle, frequency = rng.uniform(0, TAU), rng.uniform(*cycles)
    u = frequency * (np.cos(angle) * x - np.sin(angle) * y) + rng.uniform(0, 1)
    v = frequency * (np.sin(angle) * x + np.cos(angle) * y) + rng.uniform(0, 1)
    return u, v


def surface(
    pattern: Pattern, rng: np.random.Generator, colours: Palette, cycles: tuple[float, float]
) -> Pixels:
    """The pattern in two colours of the palette, lit unevenly and photographed."""
    u, v = turned_grid(rng, cycles)
    share = pattern(u, v, rng)
    first = colours.pick(rng)
    second = vary(colours.pick(rng), 10, rng)
    while abs(sum(first) - sum(second)) < 90:
        second = vary(colours.pick(rng), 30, rng)
    painted = blend(first, second, share) + (rng.uniform(0, 18) * clouds(rng, 5))[..., None]
    return photograph(to_canvas(painted), rng, blur=(0.0, 1.0), noise=(2.0, 14.0))


def draw_texture(request: Request, rng: np.random.Generator) -> Pixels:
    """One photograph of a surface with the named pattern."""
    return surface(PATTERNS[request.label], rng, SURFACE, (2.5, 5.5))
