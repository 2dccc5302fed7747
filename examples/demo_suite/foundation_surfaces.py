"""Patterned surfaces for the pretraining; none of them is a class of the task `textures`."""

# All patterns are called alike, though not each of them needs every argument.
# ruff: noqa: ARG001

from __future__ import annotations

import numpy as np

from examples.demo_suite.canvas import CANVAS_SIZE, Palette, Pixels, Plane, clouds
from examples.demo_suite.textures import TAU, Pattern, cell, soft, surface, triangle_wave

ANY_COLOUR = Palette((0.0, 1.0), (0.0, 0.9), (0.1, 1.0))


def triangles(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """A tiling of triangles."""
    return soft(cell(v) + 0.5 - np.abs(2 * cell(u)), 10.0)


def scales(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Rows of overlapping arcs."""
    shifted = cell(u + 0.5 * (np.floor(v) % 2))
    return soft(np.sin(TAU * np.hypot(shifted, v - np.floor(v))), 3.0)


def spiral(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """One arm that winds outwards."""
    return soft(np.sin(TAU * np.hypot(u, v) + rng.choice([-2, -1, 1, 2]) * np.arctan2(v, u)))


def sunburst(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Rays from one point."""
    return soft(np.sin(int(rng.integers(5, 12)) * np.arctan2(v, u)))


def tartan(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Bands of several widths laid over each other both ways."""
    one = soft(np.sin(TAU * u) + 0.6 * np.sin(TAU * 2.3 * u))
    two = soft(np.sin(TAU * v) + 0.6 * np.sin(TAU * 2.3 * v))
    return 0.5 * (one + two)


def lozenges(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Tall diamonds."""
    return soft(np.abs(cell(u)) + np.abs(cell(0.5 * v)) - 0.5, 12.0)


def crosses(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Small plus signs in rows."""
    x, y = np.abs(cell(u)), np.abs(cell(v))
    return soft(0.1 - np.minimum(np.maximum(x, y - 0.22), np.maximum(x - 0.22, y)), 16.0)


def fibres(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Noise drawn out in one direction, as in wood."""
    noise = clouds(rng, 20)[0]
    return soft(np.interp(u + 0.1 * np.sin(v), np.linspace(-4, 5, CANVAS_SIZE), noise), 2.0)


def speckle(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Fine grains."""
    return soft(clouds(rng, 32) - rng.uniform(0.0, 0.4), 5.0)


def islands(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Spots with hard ragged edges, as on a leopard: a band of a noise's values."""
    return soft(0.16 - np.abs(np.abs(clouds(rng, int(rng.integers(5, 10)))) - 0.4), 24.0)


def steps(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Stairs of several greys."""
    stair: Plane = np.floor(4 * (u - np.floor(u))) / 3
    return stair


def hatching(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Lines broken into dashes."""
    return soft(
        np.minimum(0.16 - np.abs(cell(u)), 0.3 - np.abs(cell(0.5 * v + 0.3 * np.floor(u + 0.5)))), 16.0
    )


def ripples(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Two sets of rings that interfere."""
    first, second = np.hypot(u - 1.5, v), np.hypot(u + 1.5, v + 1)
    return soft(np.sin(TAU * first) + np.sin(TAU * second), 1.5)


def shingles(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """A saw's teeth across, shaded along."""
    return soft(cell(u) + 0.3 * triangle_wave(v), 4.0)


PATTERNS: dict[str, Pattern] = {
    "triangles": triangles,
    "scales": scales,
    "spiral": spiral,
    "sunburst": sunburst,
    "tartan": tartan,
    "lozenges": lozenges,
    "crosses": crosses,
    "fibres": fibres,
    "speckle": speckle,
    "islands": islands,
    "steps": steps,
    "hatching": hatching,
    "ripples": ripples,
    "shingles": shingles,
}


def draw_surface(name: str, rng: np.random.Generator) -> Pixels:
    """One photograph of a surface in any colours."""
    return surface(PATTERNS[name], rng, ANY_COLOUR, (1.5, 6.5))
