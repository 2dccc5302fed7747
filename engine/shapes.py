"""Drawn pictures of plain shapes: edges, areas and strokes, which all photographs and drawings have.

Noise has none of them. What an encoder makes of edges is in every picture that it is asked about, so that
evidence that is measured beyond noise alone tells every picture from noise before it tells a task.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_SHAPES = 64  # of a picture
LARGEST = 0.5  # of a picture's side: the longer half axis of a shape
THINNEST = 0.05  # of it: the shorter one


def pictures_of_shapes(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yields pixels [3, size, size] uint8: ellipses, rectangles and rings of random size, place and colour.

    One to 64 of them lie over each other, few as often as many. Every second picture is without colour, and
    every second two are on black or white, as writing and what is cut out are.
    """
    for number in range(count):
        picture = _ground(number, size, generator)
        for _ in range(int(MOST_SHAPES ** _random(generator))):
            colour = torch.rand(3, 1, 1, generator=generator)
            picture = torch.where(_Shape.drawn(size, generator).covers(size), colour, picture)
        if number % 2:
            picture = picture.mean(0, keepdim=True).expand(3, -1, -1)
        yield (255 * picture).to(torch.uint8)


def _ground(number: int, size: int, generator: torch.Generator) -> Tensor:
    if number % 4 < 2:
        return torch.rand(3, 1, 1, generator=generator).expand(-1, size, size)
    return torch.full((3, size, size), float(_random(generator) < 0.5))


@dataclass(frozen=True)
class _Shape:
    """An ellipse, a rectangle or a ring. All lengths are in pixels."""

    kind: int
    centre: tuple[float, float]
    angle: float  # of its longer axis, in radians
    half: float  # its longer half axis
    thin: float  # its shorter one; of a ring, its stroke

    @classmethod
    def drawn(cls, size: int, generator: torch.Generator) -> _Shape:
        x, y, angle, length, width, kind = torch.rand(6, generator=generator).tolist()
        half = LARGEST * size * length**2 + 1
        thin = half * (THINNEST + (1 - THINNEST) * width)
        return cls(int(3 * kind), (size * x, size * y), math.pi * angle, half, thin)

    def covers(self, size: int) -> Tensor:
        """The mask [size, size] of the pixels that it covers."""
        middles = torch.arange(size) + 0.5
        down, right = torch.meshgrid(middles - self.centre[1], middles - self.centre[0], indexing="ij")
        along = right * math.cos(self.angle) + down * math.sin(self.angle)
        across = down * math.cos(self.angle) - right * math.sin(self.angle)
        match self.kind:
            case 0:
                return (along / self.half).square() + (across / self.thin).square() < 1
            case 1:
                return (along.abs() < self.half) & (across.abs() < self.thin)
        from_edge = (along.square() + across.square()).sqrt() - self.half
        return from_edge.abs() < max(1.0, 0.15 * self.thin)


def _random(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))
