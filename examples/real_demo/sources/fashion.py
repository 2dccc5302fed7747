"""Photographs of clothes: Fashion-MNIST (Zalando, MIT), 70,000 of 28 x 28 grey pixels, from Debian."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from examples.from_packages.packages import fetch
from examples.real_demo.packages import FASHION
from examples.real_demo.pictures import Picture

LABELS = (
    *("t-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


def clothes(raw: Path) -> Iterator[Picture]:
    """All photographs, each a group of its own."""
    folder = fetch(FASHION, raw) / "usr/share/datasets/fashion-mnist"
    for part in ("train", "t10k"):
        values = np.frombuffer(_bytes(folder / f"{part}-labels-idx1-ubyte.gz")[8:], np.uint8)
        pixels = np.frombuffer(_bytes(folder / f"{part}-images-idx3-ubyte.gz")[16:], np.uint8)
        for number, (value, image) in enumerate(zip(values, pixels.reshape(-1, 28, 28), strict=True)):
            yield Picture(LABELS[value], f"{part} {number}", partial(Image.fromarray, image))


def _bytes(path: Path) -> bytes:
    with gzip.open(path) as file:
        return file.read()
