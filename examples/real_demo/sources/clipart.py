"""Drawings of the Open Clip Art Library (public domain), from Debian: the folder says what they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from PIL import Image

from examples.real_demo.packages import CLIPART, fetch
from examples.real_demo.pictures import Picture

LARGEST_FILE = 100_000  # bytes: the few larger ones take longer to decode than all others together
THINGS = {
    name: name
    for name in (
        *("animals", "buildings", "food", "office", "people"),
        *("plants", "tools", "transportation"),
    )
}
SYMBOLS = {
    "arrows": "shapes/arrows",
    "buttons": "computer/buttons",
    "cards": "recreation/games/cards",
    "displays": "signs_and_symbols/led",
    "flags": "signs_and_symbols/flags",
    "jigsaw": "shapes/jigsaw",
    "map symbols": "signs_and_symbols/map_symbols",
    "patterns": "special/patterns",
    "road signs": "transportation/roadsigns",
    "stars": "shapes/stars",
}


def clipart(raw: Path) -> Iterator[Picture]:
    """Drawings of things; road signs belong to the symbols."""
    return _drawings(raw, THINGS, without=SYMBOLS["road signs"])


def symbols(raw: Path) -> Iterator[Picture]:
    """Drawings of signs."""
    return _drawings(raw, SYMBOLS)


def _drawings(raw: Path, folders: Mapping[str, str], without: str | None = None) -> Iterator[Picture]:
    library = fetch(CLIPART, raw) / "usr/share/openclipart/png"
    for label, folder in folders.items():
        for path in sorted((library / folder).rglob("*.png")):
            if path.is_symlink() or path.stat().st_size > LARGEST_FILE:
                continue
            if not (without and path.is_relative_to(library / without)):
                yield Picture(label, path.stem, partial(Image.open, path))
