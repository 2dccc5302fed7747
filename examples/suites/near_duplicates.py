"""Domains that are hard or impossible to tell apart: six tasks in three pairs.

- `digits` and `typed`: real scans of handwritten digits, and printed digits scanned as coarsely. They differ
  in the strokes alone, so routing can be mostly right, and both have the same label names.
- `small_letters` and `capitals`: one hand writes both on the same page; only the letter tells the task.
- `tiles_by_pattern` and `tiles_by_colour`: the same pictures with two label sets. No router can know which of
  the two a caller means: right half the time at best, unless the caller names the task.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from examples.demo_suite.canvas import CANVAS_SIZE, Palette, Pixels, clouds
from examples.demo_suite.digits import DIGIT_NAMES, draw_scan, scanned
from examples.demo_suite.fonts import fonts_for, glyph, pick_font
from examples.demo_suite.letters import GREEK_LETTERS, Script
from examples.demo_suite.looks import Look, Pose, pose_glyph, write
from examples.demo_suite.request import Request
from examples.demo_suite.tasks import Task
from examples.suites.scripts import named
from examples.suites.tiles import Tiles

SCAN_SIZE = 8
# How far a hand strays from the printed form, in pixels of the canvas.
STRAYING = 5.0
NOTEBOOK = Look(
    ground=Palette((0.12, 0.18), (0.03, 0.15), (0.82, 1.0)),
    ink=Palette((0.58, 0.66), (0.4, 0.9), (0.2, 0.6)),
    blur=(0.3, 1.0),
)


def draw_typed(request: Request, rng: np.random.Generator) -> Pixels:
    """A printed digit, scanned as coarsely as the handwritten ones."""
    font = pick_font(fonts_for("0123456789", request.split), rng)
    page = glyph(font, str(DIGIT_NAMES[request.label]))
    top, bottom = page.getbbox()[1::2]  # type: ignore[index]
    side = slice((CANVAS_SIZE - bottom + top) // 2, (CANVAS_SIZE + bottom - top) // 2)
    square = Image.fromarray(np.asarray(page)[top:bottom, side])
    return scanned(square.resize((SCAN_SIZE, SCAN_SIZE), Image.Resampling.BOX), rng)


def by_hand(letter: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The glyph with strokes bent as a hand bends them: each pixel comes from a smoothly moved place."""
    rows, columns = np.indices((CANVAS_SIZE, CANVAS_SIZE))

    def moved(ticks: np.ndarray) -> np.ndarray:
        places = ticks + STRAYING * clouds(rng, int(rng.integers(2, 5)))
        return np.clip(np.rint(places), 0, CANVAS_SIZE - 1).astype(int)

    return Image.fromarray(np.asarray(letter)[moved(rows), moved(columns)])


class Handwriting(Script):
    """Letters as one hand writes them."""

    def draw(self, request: Request, rng: np.random.Generator) -> Pixels:
        """One picture of the letter, after a font of the request's side of the split."""
        font = pick_font(fonts_for(self.characters, request.split), rng)
        letter = by_hand(glyph(font, self.letters[request.label]), rng)
        return write(pose_glyph(letter, Pose(slant=0.25), rng), self.look, rng)


SMALL_LETTERS = Handwriting(GREEK_LETTERS, NOTEBOOK)
CAPITALS = Handwriting(named("ΓΔΘΛΞΠΣΦΨΩ"), NOTEBOOK)
BY_PATTERN, BY_COLOUR = Tiles("pattern"), Tiles("colour")

TASKS = (
    Task("digits", tuple(DIGIT_NAMES), draw_scan),
    Task("typed", tuple(DIGIT_NAMES), draw_typed),
    Task("small_letters", tuple(SMALL_LETTERS.letters), SMALL_LETTERS.draw),
    Task("capitals", tuple(CAPITALS.letters), CAPITALS.draw),
    Task("tiles_by_pattern", BY_PATTERN.labels, BY_PATTERN.draw),
    Task("tiles_by_colour", BY_COLOUR.labels, BY_COLOUR.draw),
)
