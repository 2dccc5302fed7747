"""Drawings by their subject: the Open Clip Art Library (public domain), from Debian."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from examples.from_packages.packages import fetch
from examples.real_demo.packages import CLIP_ART
from examples.real_demo.pictures import Picture

# The folders that say what is in a picture, not what it is for.
SUBJECTS = (
    *("animals", "buildings", "food", "office", "people"),
    *("plants", "recreation", "tools", "transportation"),
)
# Larger files are of posters, some of them of more pixels than Pillow opens.
MOST_BYTES = 200_000
_NUMBER = re.compile(r"\d+")


def clip_art(raw: Path) -> Iterator[Picture]:
    """The pictures of nine subjects; those whose names differ by a number alone are in one group."""
    folder = fetch(CLIP_ART, raw) / "usr/share/openclipart/png"
    for subject in SUBJECTS:
        for path in sorted((folder / subject).rglob("*.png")):
            if path.stat().st_size <= MOST_BYTES:
                series = _NUMBER.sub("", str(path.relative_to(folder).with_suffix("")))
                yield Picture(subject, series, partial(Image.open, path))
