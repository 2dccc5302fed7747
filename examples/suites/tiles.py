"""One set of pictures with two label sets: painted tiles, by their pattern and by their colour.

Both tasks draw the same pictures, pixel by pixel, on either side of the split.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from examples.demo_suite.canvas import Palette, Pixels
from examples.demo_suite.request import Request, Split
from examples.demo_suite.textures import PATTERNS, surface

TILE_PATTERNS = ("stripes", "checker", "dots", "bricks", "rings")
TILE_COLOURS = {
    name: Palette(hue, (0.55, 0.9), (0.3, 1.0))
    for name, hue in {
        "red": (-0.03, 0.03),
        "yellow": (0.13, 0.17),
        "green": (0.30, 0.38),
        "blue": (0.56, 0.63),
        "purple": (0.76, 0.83),
    }.items()
}


@dataclass(frozen=True)
class Tiles:
    """The tiles with the labels of one property."""

    labelled_by: Literal["pattern", "colour"]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the property."""
        return TILE_PATTERNS if self.labelled_by == "pattern" else tuple(TILE_COLOURS)

    def draw(self, request: Request, _rng: np.random.Generator) -> Pixels:
        """The tile of that number; numbers of one label go through the classes of the other property.

        As there are as many patterns as colours, any range of whole rounds holds the same tiles for both.
        """
        others = tuple(TILE_COLOURS) if self.labelled_by == "pattern" else TILE_PATTERNS
        turn, which = divmod(request.number, len(others))
        pair = (request.label, others[which])
        pattern, colour = pair if self.labelled_by == "pattern" else pair[::-1]
        return tile(pattern, colour, request.split, turn)


def tile(pattern: str, colour: str, split: Split, number: int) -> Pixels:
    """The tile with this number of one pattern and colour, whatever it is asked for."""
    rng = np.random.default_rng([zlib.crc32(f"tile/{pattern}/{colour}/{split}".encode()), number])
    return surface(PATTERNS[pattern], rng, TILE_COLOURS[colour], (2.0, 4.0))
