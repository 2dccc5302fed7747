"""What every generator shares: a canvas twice as large as the image, colours, smooth noise, the camera."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

IMAGE_SIZE = 32
CANVAS_SIZE = 2 * IMAGE_SIZE

Colour = tuple[int, int, int]
Range = tuple[float, float]
Point = tuple[float, float]
Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Palette:
    """A box of colours in hue (turns, may exceed 1 to wrap round), saturation and value."""

    hue: Range
    saturation: Range
    value: Range

    def pick(self, rng: np.random.Generator) -> Colour:
        """One colour drawn evenly from the box."""
        hue, saturation, value = (rng.uniform(*bounds) for bounds in (self.hue, self.saturation, self.value))
        red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
        return round(255 * red), round(255 * green), round(255 * blue)


def vary(colour: Sequence[float], amount: float, rng: np.random.Generator) -> Colour:
    """The colour with each channel moved by up to `amount`."""
    red, green, blue = (int(np.clip(c + rng.uniform(-amount, amount), 0, 255)) for c in colour)
    return red, green, blue


def clouds(rng: np.random.Generator, cells: int, size: int = CANVAS_SIZE) -> Plane:
    """Smooth noise in about [-1, 1], [size, size]; `cells` blobs fit across the picture."""
    coarse = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float64)


def grid(size: int = CANVAS_SIZE) -> tuple[Plane, Plane]:
    """Coordinates x and y in [-0.5, 0.5], each [size, size]."""
    ticks = (np.arange(size) + 0.5) / size - 0.5
    x, y = np.meshgrid(ticks, ticks)
    return x, y


def blend(first: Sequence[float], second: Sequence[float], share: Plane) -> Plane:
    """`first` where `share` is 0, `second` where it is 1: [H, W, 3] in 0..255."""
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return one + (two - one) * np.clip(share, 0, 1)[..., None]


def to_canvas(pixels: Plane) -> Image.Image:
    """A float picture [H, W, 3] in 0..255 as an RGB image to draw on."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def place(
    points: Iterable[Point], centre: Point, radius: float, angle: float = 0.0, squash: float = 1.0
) -> list[Point]:
    """Points of a shape in the unit circle, turned by `angle`, narrowed by `squash`, moved to the canvas."""
    cos, sin = math.cos(angle) * radius, math.sin(angle) * radius
    return [(centre[0] + squash * (cos * x - sin * y), centre[1] + sin * x + cos * y) for x, y in points]


def photograph(
    canvas: Image.Image, rng: np.random.Generator, blur: Range = (0.0, 0.0), noise: Range = (0.0, 0.0)
) -> Pixels:
    """The canvas as a camera takes it: blurred, halved in size, with pixel noise; [32, 32, 3] in uint8."""
    radius = rng.uniform(*blur)
    if radius > 0.05:
        canvas = canvas.filter(ImageFilter.GaussianBlur(radius))
    pixels = np.asarray(canvas.reduce(CANVAS_SIZE // IMAGE_SIZE), dtype=np.float64)
    pixels = pixels + rng.normal(0.0, 1.0, pixels.shape) * rng.uniform(*noise)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
