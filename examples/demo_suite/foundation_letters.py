"""Letters for the pretraining: ten scripts, none of them a task's, each letter a class of its own."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np

from examples.demo_suite.canvas import Palette, Pixels, photograph, to_canvas
from examples.demo_suite.digits import STREET, clutter
from examples.demo_suite.fonts import FontFile, fonts_for, glyph, pick_font
from examples.demo_suite.looks import CHALKBOARD, PAPER, PARCHMENT, SCAN, Look, Pose, ground, pose_glyph
from examples.demo_suite.signs import roadside

LETTERS_PER_SCRIPT = 12
MINIMUM_CONTRAST = 60.0
# Latin letters that look like digits, which are a task's.
LOOK_ALIKES = frozenset("OoIlSsZzBbGg")

SCRIPTS: dict[str, tuple[int, int]] = {
    "latin": (0x41, 0x7A),
    "cyrillic": (0x411, 0x44F),
    "armenian": (0x531, 0x586),
    "georgian": (0x10D0, 0x10F5),
    "arabic": (0x627, 0x64A),
    "bengali": (0x985, 0x9B9),
    "gujarati": (0xA85, 0xAB9),
    "thai": (0xE01, 0xE2E),
    "runic": (0x16A0, 0x16EA),
    "hiragana": (0x3042, 0x3093),
}

ANY_HUE = (0.0, 1.0)
LOOKS: dict[str, Look] = {
    "paper": PAPER,
    "parchment": PARCHMENT,
    "chalkboard": CHALKBOARD,
    "scan": SCAN,
    "poster": Look(Palette(ANY_HUE, (0.3, 1.0), (0.4, 1.0)), Palette(ANY_HUE, (0.0, 1.0), (0.0, 1.0))),
    "neon": Look(
        Palette(ANY_HUE, (0.0, 0.8), (0.0, 0.2)), Palette(ANY_HUE, (0.6, 1.0), (0.7, 1.0)), blur=(0.5, 1.5)
    ),
    "blueprint": Look(
        Palette((0.55, 0.68), (0.5, 1.0), (0.3, 0.7)), Palette((0.5, 0.7), (0.0, 0.2), (0.8, 1.0))
    ),
    "newsprint": Look(
        Palette(ANY_HUE, (0.0, 0.1), (0.5, 0.8)), Palette(ANY_HUE, (0.0, 0.1), (0.0, 0.3)), noise=(8.0, 20.0)
    ),
    "clay": Look(
        Palette((0.02, 0.1), (0.3, 0.7), (0.3, 0.7)),
        Palette((0.02, 0.1), (0.2, 0.7), (0.0, 0.9)),
        blotches=(10, 40),
    ),
    "street": STREET,
    "roadside": Look(STREET.ground, STREET.ink, blur=(0.2, 1.4)),
}


def usable(character: str) -> bool:
    """True for a letter or symbol that is no arrow and no look-alike of a digit."""
    if unicodedata.category(character) not in {"Lu", "Ll", "Lo", "So"}:
        return False
    return character not in LOOK_ALIKES


@cache
def letters_of(script: str) -> tuple[str, ...]:
    """Up to LETTERS_PER_SCRIPT letters, spread over the script, that some training font can draw."""
    first, last = SCRIPTS[script]
    letters = [chr(code) for code in range(first, last + 1) if usable(chr(code))]
    # Two candidates for each letter are enough, and a syllabary of a thousand would take minutes to check.
    candidates = letters[:: max(1, len(letters) // (2 * LETTERS_PER_SCRIPT))]
    drawable = [character for character in candidates if fonts_for(character, "training")]
    step = max(1, len(drawable) // LETTERS_PER_SCRIPT)
    return tuple(drawable[::step][:LETTERS_PER_SCRIPT])


def contrasting(look: Look, ground_mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An ink of the look that can be read on the ground; after twenty tries the far end of grey."""
    weights = np.array([0.299, 0.587, 0.114])
    for _ in range(20):
        colour = np.asarray(look.ink.pick(rng), dtype=np.float64)
        if abs(float(weights @ (colour - ground_mean))) > MINIMUM_CONTRAST:
            return colour
    return np.full(3, 255.0 if float(weights @ ground_mean) < 128 else 0.0)


def font_for(character: str, rng: np.random.Generator) -> FontFile:
    """A training font that has the character."""
    return pick_font(fonts_for(character, "training"), rng)


def draw_letter(character: str, look_name: str, rng: np.random.Generator) -> Pixels:
    """One picture of a letter in the named look."""
    look = LOOKS[look_name]
    canvas = roadside(rng) if look_name == "roadside" else to_canvas(ground(look, rng))
    if look_name == "street":
        clutter(canvas, rng)
    below = np.asarray(canvas, dtype=np.float64)
    pose = Pose(angle=0.25, slant=0.2, shift=5.0, scale=(0.6, 1.15))
    ink = pose_glyph(glyph(font_for(character, rng), character), pose, rng)[..., None]
    colour = contrasting(look, below.mean(axis=(0, 1)), rng)
    return photograph(to_canvas(below + (colour - below) * ink), rng, look.blur, look.noise)
