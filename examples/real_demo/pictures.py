"""Pictures with labels, divided into those to learn from, to calibrate with and to measure on."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

Split = Literal["evaluation", "tuning", "training"]
# Of each task: the share of its pictures at which a split ends, and how many of them the split takes at most.
ENDS: Mapping[Split, float] = {"evaluation": 0.2, "tuning": 0.3, "training": 1.0}
LIMITS: Mapping[Split, int] = {"evaluation": 160, "tuning": 80, "training": 3200}
LARGEST = 112  # pixels a side: twice what the encoder sees


@dataclass(frozen=True)
class Picture:
    """One labelled picture. Pictures of one group are alike, and are therefore in one split."""

    label: str
    group: str
    read: Callable[[], Image.Image]


def divide(pictures: Sequence[Picture]) -> dict[Split, list[Picture]]:
    """The pictures of each split, the same ones every time: groups in the order of their hashes.

    A label has the same number of pictures in a split as any other label, or all that there are.
    """
    ordered = sorted(pictures, key=lambda picture: (_hashed(picture.group), picture.group))
    sizes = Counter(picture.group for picture in pictures)
    labels = len({picture.label for picture in pictures})
    taken: dict[Split, list[Picture]] = {split: [] for split in ENDS}
    counts: Counter[tuple[Split, str]] = Counter()
    begun, last = 0, ""
    for picture in ordered:
        if last and picture.group != last:
            begun += sizes[last]
        last = picture.group
        split = _split_at(begun / len(pictures))
        if counts[split, picture.label] < -(-LIMITS[split] // labels):
            counts[split, picture.label] += 1
            taken[split].append(picture)
    return taken


def write_task(out: Path, task: str, pictures: Iterable[Picture]) -> None:
    """Writes `out/<split>/<task>/<label>/<number>.png`; a split that an earlier run wrote stays as it is."""
    for split, chosen in divide(list(pictures)).items():
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


def _split_at(position: float) -> Split:
    """The split of a group that begins at this share of all pictures."""
    return next(split for split, end in ENDS.items() if position < end)


def _square(picture: Image.Image) -> Image.Image:
    """The picture on a white square, as large as it was but at most LARGEST."""
    colour = picture.convert("RGBA")
    colour.thumbnail((LARGEST, LARGEST), Image.Resampling.BICUBIC)
    side = max(colour.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(colour, ((side - colour.width) // 2, (side - colour.height) // 2), colour)
    return square


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
