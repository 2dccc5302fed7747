"""The installed fonts, split by family into those that training may use and those that are held out.

Relatives count as one family: FreeSans was drawn from Nimbus Sans, and Noto Sans from Open Sans. No stage of
training, the pretraining included, sees a held-out family in any script or weight.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

from examples.demo_suite.canvas import CANVAS_SIZE
from examples.demo_suite.request import Split

FONT_FOLDER = Path("/usr/share/fonts")
GLYPH_SIZE = 44
# Whether a glyph is there can be told from a small one, four times as quickly.
COVERAGE_SIZE = 12
# No font draws this code point, so what comes out is the font's sign for a missing character.
NO_CHARACTER = "\uffff"

# Each Debian package by one family that it brings.
PACKAGES = {
    "fonts-noto-core": "Noto Sans Devanagari",
    "fonts-dejavu": "DejaVu Sans",
    "fonts-liberation": "Liberation Sans",
    "fonts-freefont-ttf": "FreeSans",
    "fonts-urw-base35": "Nimbus Sans",
    "fonts-lato": "Lato",
    "fonts-open-sans": "Open Sans",
    "fonts-roboto": "Roboto",
    "fonts-linuxlibertine": "Linux Libertine O",
    "fonts-ipafont": "IPAGothic",
}

# A prefix of the family's name, and the group of relatives that it belongs to; the first match counts.
GROUPS = (
    ("DejaVu", "dejavu"),
    ("FreeSans", "nimbus-sans"),
    ("Nimbus Sans", "nimbus-sans"),
    ("FreeSerif", "nimbus-roman"),
    ("Nimbus Roman", "nimbus-roman"),
    ("FreeMono", "nimbus-mono"),
    ("Nimbus Mono", "nimbus-mono"),
    ("Linux Libertine", "libertine"),
    ("Linux Biolinum", "libertine"),
    ("Liberation Sans", "liberation-sans"),
    ("Liberation Serif", "liberation-serif"),
    ("Liberation Mono", "liberation-mono"),
    ("Noto Serif", "noto-serif"),
    ("Noto", "open-sans"),
    ("Open Sans", "open-sans"),
    ("Roboto", "roboto"),
    ("Lato", "lato"),
    ("IPA", "ipa"),
    ("C059", "c059"),
    ("P052", "p052"),
    ("URW Bookman", "bookman"),
    ("URW Gothic", "gothic"),
)
# These draw key caps, frames or a cursive hand round the letters, which are then another domain's.
UNSUITABLE = ("Linux Biolinum Keyboard", "Linux Libertine Initials", "Noto Rashi")
HELD_OUT_GROUPS = frozenset({"dejavu", "nimbus-sans", "roboto", "p052"})


class FontsMissingError(Exception):
    """Fonts that the suite draws with are not installed; the text says which packages bring them."""


@dataclass(frozen=True)
class FontFile:
    """One file with the name of its family and the group of its relatives."""

    path: Path
    family: str
    group: str

    @property
    def split(self) -> Split:
        """Which side of the split this file's family is on."""
        return "held_out" if self.group in HELD_OUT_GROUPS else "training"


def group_of(family: str) -> str | None:
    """The group of relatives that a family belongs to; None for a family that the suite does not use."""
    if family.startswith(UNSUITABLE):
        return None
    return next((group for prefix, group in GROUPS if family.startswith(prefix)), None)


@cache
def installed_fonts() -> tuple[FontFile, ...]:
    """All usable font files, in the order of their names, so that every machine sees the same order."""
    files = (p for p in FONT_FOLDER.rglob("*") if p.suffix.lower() in {".ttf", ".otf"})
    found = []
    for path in sorted(files, key=lambda p: p.name):
        family = str(ImageFont.truetype(path, GLYPH_SIZE).getname()[0])
        group = group_of(family)
        if group is not None:
            found.append(FontFile(path, family, group))
    return tuple(found)


def require_fonts() -> None:
    """Raise FontsMissingError with the packages to install unless every package's family is there."""
    families = {font.family for font in installed_fonts()}
    missing = [package for package, family in PACKAGES.items() if family not in families]
    if missing:
        raise FontsMissingError(
            f"The demo suite draws with fonts that are not here: apt-get install {' '.join(missing)}"
        )


@cache
def _typeface(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _missing_sign(path: Path) -> tuple[tuple[int, int], bytes]:
    sign = _typeface(path, COVERAGE_SIZE).getmask(NO_CHARACTER)
    return sign.size, bytes(sign)


@cache
def covers(font: FontFile, character: str) -> bool:
    """True if the font has ink for the character and not just its sign for a missing one."""
    ink = _typeface(font.path, COVERAGE_SIZE).getmask(character)
    if ink.getbbox() is None:
        return False
    return (ink.size, bytes(ink)) != _missing_sign(font.path)


@cache
def fonts_for(characters: str, split: Split) -> tuple[FontFile, ...]:
    """The fonts of one side of the split that have every one of the characters."""
    fonts = (font for font in installed_fonts() if font.split == split)
    return tuple(font for font in fonts if all(covers(font, character) for character in characters))


def pick_font(fonts: Iterable[FontFile], rng: np.random.Generator) -> FontFile:
    """A font drawn by group first, so that a family with twenty weights does not count twenty times."""
    groups: dict[str, list[FontFile]] = {}
    for font in fonts:
        groups.setdefault(font.group, []).append(font)
    group = list(groups.values())[rng.integers(len(groups))]
    return group[rng.integers(len(group))]


@cache
def glyph(font: FontFile, character: str) -> Image.Image:
    """The character's ink in the middle of a canvas, its longer side `GLYPH_SIZE` pixels; mode L."""
    mask = _typeface(font.path, GLYPH_SIZE).getmask(character)
    ink = Image.frombytes("L", mask.size, bytes(mask)).crop(mask.getbbox())
    scale = GLYPH_SIZE / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    canvas = Image.new("L", (CANVAS_SIZE, CANVAS_SIZE))
    corner = ((CANVAS_SIZE - size[0]) // 2, (CANVAS_SIZE - size[1]) // 2)
    canvas.paste(ink.resize(size, Image.Resampling.BICUBIC), corner)
    return canvas
