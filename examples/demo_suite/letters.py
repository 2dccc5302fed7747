"""Three scripts, each with its look: printed Greek, Hebrew on parchment, Devanagari on a chalkboard."""

# The letters are those of the scripts, whatever Latin ones they resemble.
# ruff: noqa: RUF001

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.demo_suite.canvas import Pixels
from examples.demo_suite.fonts import fonts_for, glyph, pick_font
from examples.demo_suite.looks import Look, Pose, pose_glyph, write
from examples.demo_suite.request import Request


@dataclass(frozen=True)
class Script:
    """Names and characters of a script's classes, and the look of its pages."""

    letters: dict[str, str]
    look: Look

    @property
    def characters(self) -> str:
        """All characters of the classes, which a font must have to be used."""
        return "".join(self.letters.values())

    def draw(self, request: Request, rng: np.random.Generator) -> Pixels:
        """One picture of the letter in a font of the request's side of the split."""
        font = pick_font(fonts_for(self.characters, request.split), rng)
        ink = pose_glyph(glyph(font, self.letters[request.label]), Pose(), rng)
        return write(ink, self.look, rng)


GREEK_LETTERS = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "theta": "θ",
    "lambda": "λ",
    "mu": "μ",
    "xi": "ξ",
    "pi": "π",
    "psi": "ψ",
    "omega": "ω",
}
HEBREW_LETTERS = {
    "alef": "א",
    "gimel": "ג",
    "he": "ה",
    "tet": "ט",
    "lamed": "ל",
    "mem": "מ",
    "samekh": "ס",
    "ayin": "ע",
    "pe": "פ",
    "tsadi": "צ",
    "qof": "ק",
    "shin": "ש",
}
DEVANAGARI_LETTERS = {
    "ka": "क",
    "ga": "ग",
    "ca": "च",
    "ja": "ज",
    "tta": "ट",
    "nna": "ण",
    "ta": "त",
    "da": "द",
    "na": "न",
    "pa": "प",
    "la": "ल",
    "ha": "ह",
}
