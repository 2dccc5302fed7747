"""Quotations and jokes by the file that they are in: fortunes (BSD), from Debian."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from examples.from_packages.packages import fetch
from examples.text_demo.packages import FORTUNES
from examples.text_demo.texts import Text

FILES = (
    "computers",
    "definitions",
    "law",
    "men-women",
    "people",
    "politics",
    "science",
    "songs-poems",
    "work",
)


def fortunes(raw: Path) -> Iterator[Text]:
    """Those of nine files, each a group of its own."""
    folder = fetch(FORTUNES, raw) / "usr/share/games/fortunes"
    for name in FILES:
        for number, fortune in enumerate((folder / f"{name}.u8").read_text(encoding="utf-8").split("\n%\n")):
            yield Text(name, f"{name} {number}", fortune)
