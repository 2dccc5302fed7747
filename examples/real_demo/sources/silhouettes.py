"""Silhouettes of animals, 10,000 of 28 x 28 greys: animal-mnist (MIT), from PyPI. No task has them."""

from __future__ import annotations

import gzip
import pickletools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from examples.from_packages.packages import fetch
from examples.real_demo.packages import SILHOUETTES

SIDE = 28


def silhouettes(raw: Path) -> Iterator[Image.Image]:
    """All of them, the animals one after another."""
    folder = fetch(SILHOUETTES, raw) / "animal_mnist/data/Animal_MNIST"
    with gzip.open(folder / "animal_data_version_3.gz") as file:
        greys = largest_bytes(file.read())
    for picture in np.frombuffer(greys, np.uint8).reshape(-1, SIDE, SIDE):
        yield Image.fromarray(picture)


def largest_bytes(pickled: bytes) -> bytes:
    """The longest string of bytes in a pickle, an array's values; nothing that the pickle asks for is run."""
    arguments = (argument for _, argument, _ in pickletools.genops(pickled))
    return max((argument for argument in arguments if isinstance(argument, bytes)), key=len)
