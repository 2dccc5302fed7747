"""Letters for the pretraining: over forty scripts, none of them a task's, each letter a class of its own."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np

from examples.demo_suite.canvas import Palette, Pixels, photograph, to_canvas
from examples.demo_suite.digits import STREET, clutter
from examples.demo_suite.fonts import FontFile, fonts_for, glyph, pick_font
from examples.demo_suite.looks import CHALKBOARD, PAPER, PARCHMENT, SCAN, Look, Pose, ground, pose_glyph
from examples.demo_suite.signs import roadside

LETTERS_PER_SCRIPT = 14
MINIMUM_CONTRAST = 60.0
# Latin letters that look like digits, which are a task's.
LOOK_ALIKES = frozenset("OoIlSsZzBbGg")

SCRIPTS: dict[str, tuple[int, int]] = {
    "latin": (0x41, 0x7A),
    "cyrillic": (0x411, 0x44F),
    "armenian": (0x531, 0x586),
    "georgian": (0x10D0, 0x10F5),
    "arabic": (0x627, 0x64A),
    "syriac": (0x710, 0x72C),
    "thaana": (0x780, 0x7A5),
    "nko": (0x7CA, 0x7EA),
    "bengali": (0x985, 0x9B9),
    "gurmukhi": (0xA05, 0xA39),
    "gujarati": (0xA85, 0xAB9),
    "oriya": (0xB05, 0xB39),
    "tamil": (0xB85, 0xBB9),
    "telugu": (0xC05, 0xC39),
    "kannada": (0xC85, 0xCB9),
    "malayalam": (0xD05, 0xD39),
    "sinhala": (0xD85, 0xDC6),
    "thai": (0xE01, 0xE2E),
    "lao": (0xE81, 0xEAE),
    "tibetan": (0xF40, 0xF6C),
    "myanmar": (0x1000, 0x1021),
    "ethiopic": (0x1200, 0x1350),
    "cherokee": (0x13A0, 0x13F4),
    "canadian": (0x1401, 0x166C),
    "ogham": (0x1681, 0x169A),
    "runic": (0x16A0, 0x16EA),
    "khmer": (0x1780, 0x17A2),
    "mongolian": (0x1820, 0x1842),
    "balinese": (0x1B05, 0x1B33),
    "lepcha": (0x1C00, 0x1C23),
    "ol_chiki": (0x1C5A, 0x1C7D),
    "glagolitic": (0x2C00, 0x2C2E),
    "tifinagh": (0x2D30, 0x2D67),
    "hiragana": (0x3042, 0x3093),
    "katakana": (0x30A2, 0x30F3),
    "kanji": (0x4E8C, 0x4F9B),
    "yi": (0xA000, 0xA48C),
    "lisu": (0xA4D0, 0xA4F7),
    "vai": (0xA500, 0xA60B),
    "javanese": (0xA984, 0xA9B2),
    "linear_b": (0x10000, 0x1005D),
    "gothic": (0x10330, 0x10340),
    "old_permic": (0x10350, 0x10375),
    "deseret": (0x10400, 0x1044F),
    "osmanya": (0x10480, 0x1049D),
    "cypriot": (0x10800, 0x10835),
    "old_turkic": (0x10C00, 0x10C48),
    "brahmi": (0x11005, 0x11037),
    "cuneiform": (0x12000, 0x12399),
    "hieroglyphs": (0x13000, 0x1342E),
    "symbols": (0x2600, 0x26FF),
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
