"""Solar cells photographed by their own glow: the ELPV dataset (CC-BY-NC-SA 4.0), from PyPI."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from examples.from_packages.packages import fetch
from examples.real_demo.packages import ELPV
from examples.real_demo.pictures import Picture

STATES = {0.0: "functional", 1.0: "defective"}


def solar_cells(raw: Path) -> Iterator[Picture]:
    """The cells whose state the experts were sure of, by crystal (mono or poly) and state."""
    folder = fetch(ELPV, raw) / "elpv_dataset/data"
    for line in (folder / "labels.csv").read_text().splitlines():
        name, probability, crystal = line.split()
        if float(probability) in STATES:
            label = f"{crystal} {STATES[float(probability)]}"
            yield Picture(label, name, partial(Image.open, folder / name))
