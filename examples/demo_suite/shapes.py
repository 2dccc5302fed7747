"""Outlines in the unit circle, y downwards, as the sign and the foundation generators draw them."""

from __future__ import annotations

import math
from collections.abc import Callable

from examples.demo_suite.canvas import Point


def polygon(corners: int, turn: float = 0.0) -> list[Point]:
    """A regular polygon; its first corner points up."""
    angles = [2 * math.pi * k / corners - math.pi / 2 + turn for k in range(corners)]
    return [(math.cos(a), math.sin(a)) for a in angles]


def polar(radius: Callable[[float], float], steps: int = 48) -> list[Point]:
    """The outline whose distance from the middle is a function of the angle from the top."""
    angles = [2 * math.pi * k / steps for k in range(steps)]
    return [(radius(a) * math.sin(a), -radius(a) * math.cos(a)) for a in angles]


def star(points: int, inner: float) -> list[Point]:
    """A star with sharp points."""
    ring = polygon(2 * points)
    return [p if k % 2 == 0 else (inner * p[0], inner * p[1]) for k, p in enumerate(ring)]


def mirrored(points: list[Point]) -> list[Point]:
    """The same outline with left and right exchanged."""
    return [(-x, y) for x, y in points]


CIRCLE = polygon(32)
TRIANGLE = polygon(3)
TRIANGLE_DOWN = polygon(3, math.pi)
DIAMOND = polygon(4)
SQUARE = [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
OCTAGON = polygon(8, math.pi / 8)
BAR = [(-0.7, -0.18), (0.7, -0.18), (0.7, 0.18), (-0.7, 0.18)]
# Four letters as far as they can be told at this size.
LETTER_BLOCKS = [
    [(x, -0.25), (x + 0.24, -0.25), (x + 0.24, 0.25), (x, 0.25)] for x in (-0.72, -0.32, 0.08, 0.48)
]
SLASH = [(0.45, -0.8), (0.7, -0.6), (-0.45, 0.8), (-0.7, 0.6)]
EXCLAMATION = [(-0.14, -0.45), (0.14, -0.45), (0.09, 0.35), (-0.09, 0.35)]
ARROW_UP = [(0, -0.75), (0.45, -0.2), (0.17, -0.2), (0.17, 0.7), (-0.17, 0.7), (-0.17, -0.2), (-0.45, -0.2)]
ARROW_LEFT = [(-0.75, 0), (-0.2, -0.45), (-0.2, -0.17), (0.7, -0.17), (0.7, 0.17), (-0.2, 0.17), (-0.2, 0.45)]
ARROW_RIGHT = mirrored(ARROW_LEFT)
LETTER_P = [
    (-0.35, -0.6),
    (0.15, -0.6),
    (0.42, -0.4),
    (0.42, -0.1),
    (0.15, 0.1),
    (-0.08, 0.1),
    (-0.08, 0.6),
    (-0.35, 0.6),
]

HEART = polar(
    lambda a: 0.55 + 0.38 * abs(math.sin(a)) + (0.4 if abs(a - math.pi) < 0.2 else 0.0) - 0.15 * math.cos(a)
)
FLOWER = polar(lambda a: 0.7 + 0.3 * math.cos(5 * a))
CLOVER = polar(lambda a: 0.55 + 0.45 * abs(math.cos(2 * a)))
GEAR = polar(lambda a: 0.95 if math.cos(8 * a) > 0 else 0.7)
DROP = polar(lambda a: 0.55 + 0.45 * max(0.0, math.cos(a)) ** 6)
CRESCENT = [(0.9 * math.sin(a), -0.9 * math.cos(a)) for a in (0.13 * k for k in range(2, 47))]
ELLIPSE = [(0.55 * x, y) for x, y in CIRCLE]
PENTAGON = polygon(5)
HEXAGON = polygon(6)
SEMICIRCLE = [(math.cos(a), -math.sin(a)) for a in (math.pi * k / 16 for k in range(17))]
PLUS = [
    (-0.3, -0.9),
    (0.3, -0.9),
    (0.3, -0.3),
    (0.9, -0.3),
    (0.9, 0.3),
    (0.3, 0.3),
    (0.3, 0.9),
    (-0.3, 0.9),
    (-0.3, 0.3),
    (-0.9, 0.3),
    (-0.9, -0.3),
    (-0.3, -0.3),
]
HOUSE = [(0, -0.95), (0.85, -0.2), (0.6, -0.2), (0.6, 0.85), (-0.6, 0.85), (-0.6, -0.2), (-0.85, -0.2)]
BOLT = [(0.2, -1.0), (-0.5, 0.15), (-0.05, 0.15), (-0.2, 1.0), (0.5, -0.2), (0.05, -0.2)]
BOW_TIE = [(-0.95, -0.6), (0.95, 0.6), (0.95, -0.6), (-0.95, 0.6)]
TRAPEZOID = [(-0.5, -0.6), (0.5, -0.6), (0.95, 0.6), (-0.95, 0.6)]
LETTER_L = [(-0.7, -0.9), (-0.2, -0.9), (-0.2, 0.4), (0.7, 0.4), (0.7, 0.9), (-0.7, 0.9)]
LETTER_T = [
    (-0.8, -0.9),
    (0.8, -0.9),
    (0.8, -0.4),
    (0.25, -0.4),
    (0.25, 0.9),
    (-0.25, 0.9),
    (-0.25, -0.4),
    (-0.8, -0.4),
]
