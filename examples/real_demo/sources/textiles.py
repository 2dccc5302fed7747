"""Woven textiles, faultless or with a local or global fault: conformal-clip-data (MIT), from PyPI."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from examples.from_packages.packages import fetch
from examples.real_demo.packages import TEXTILES
from examples.real_demo.pictures import Picture


def textiles(raw: Path) -> Iterator[Picture]:
    """2,000 simulated photographs."""
    folder = fetch(TEXTILES, raw) / "conformal_clip_data/data/textile_images/simulated"
    for path in sorted(folder.glob("*/*.jpg")):
        kind = path.parent.name
        yield Picture(kind, f"{kind} {path.stem}", partial(Image.open, path))
