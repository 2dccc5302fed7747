"""Pictures with labels, divided into those to learn from, to calibrate with and to measure on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from examples.from_packages.splits import Split, divide

# Of each task: how many of its pictures a split takes at most.
LIMITS: Mapping[Split, int] = {"evaluation": 160, "tuning": 80, "training": 2000}
LARGEST = 140  # pixels a side: twice what the encoder sees


@dataclass(frozen=True)
class Picture:
    """One labelled picture. Pictures of one group are alike, and are therefore in one split."""

    label: str
    group: str
    read: Callable[[], Image.Image]


def write_task(out: Path, task: str, pictures: Iterable[Picture]) -> None:
    """Writes `out/<split>/<task>/<label>/<number>.png`; a split that an earlier run wrote stays as it is."""
    for split, chosen in divide(list(pictures), LIMITS).items():
        folder = out / split / task
        if folder.exists():
            continue
        half = folder.with_name(f"{task}.half")
        shutil.rmtree(half, ignore_errors=True)
        for number, picture in enumerate(chosen):
            path = half / picture.label / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _square(picture.read()).save(path)
        half.rename(folder)


def _square(picture: Image.Image) -> Image.Image:
    """The picture on a white square, as large as it was but at most LARGEST."""
    colour = picture.convert("RGBA")
    colour.thumbnail((LARGEST, LARGEST), Image.Resampling.BICUBIC)
    side = max(colour.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(colour, ((side - colour.width) // 2, (side - colour.height) // 2), colour)
    return square
