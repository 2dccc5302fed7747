"""The eight tasks: names, labels, and how one picture of a label is drawn on each side of the split."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from examples.demo_suite.aerial import SCENES, draw_patch
from examples.demo_suite.canvas import Pixels
from examples.demo_suite.digits import DIGIT_NAMES, draw_scan, draw_street
from examples.demo_suite.letters import DEVANAGARI_LETTERS, GREEK_LETTERS, HEBREW_LETTERS, Script
from examples.demo_suite.looks import CHALKBOARD, PAPER, PARCHMENT
from examples.demo_suite.request import Request, Split
from examples.demo_suite.signs import SIGNS, draw_sign
from examples.demo_suite.textures import PATTERNS, draw_texture

Draw = Callable[[Request, np.random.Generator], Pixels]

GREEK = Script(GREEK_LETTERS, PAPER)
HEBREW = Script(HEBREW_LETTERS, PARCHMENT)
DEVANAGARI = Script(DEVANAGARI_LETTERS, CHALKBOARD)


@dataclass(frozen=True)
class Task:
    """One classification task; the labels are in the order of the head's rows."""

    name: str
    labels: tuple[str, ...]
    draw: Draw

    def picture(self, label: str, split: Split, number: int) -> Pixels:
        """The picture with this number: the same on every call, another on the other side of the split."""
        key = zlib.crc32(f"{self.name}/{label}/{split}".encode())
        return self.draw(Request(label, split, number), np.random.default_rng([key, number]))

    def pictures(self, split: Split, numbers: range) -> tuple[Pixels, npt.NDArray[np.int64]]:
        """The pictures of these numbers of every label: [N, 32, 32, 3] in uint8, and label numbers [N]."""
        drawn = [self.picture(label, split, number) for label in self.labels for number in numbers]
        return np.stack(drawn), np.repeat(np.arange(len(self.labels)), len(numbers))


TASKS: tuple[Task, ...] = (
    Task("digits", tuple(DIGIT_NAMES), draw_scan),
    Task("street", tuple(DIGIT_NAMES), draw_street),
    Task("greek", tuple(GREEK_LETTERS), GREEK.draw),
    Task("hebrew", tuple(HEBREW_LETTERS), HEBREW.draw),
    Task("devanagari", tuple(DEVANAGARI_LETTERS), DEVANAGARI.draw),
    Task("signs", tuple(SIGNS), draw_sign),
    Task("textures", tuple(PATTERNS), draw_texture),
    Task("aerial", tuple(SCENES), draw_patch),
)
