"""From a decoded image to 8-bit pixels of the encoder's size, as image processors of CLIP and ViT do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


@dataclass(frozen=True)
class Resizing:
    """Resizes the shortest edge to `size` pixels, or both, and cuts the middle of `crop` pixels out."""

    size: int
    crop: int
    interpolation: str  # one of INTERPOLATIONS
    square: bool = False  # both edges become `size` pixels long
    half_even: bool = False  # half of an odd margin is rounded to an even number, and not down

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resizes and crops an RGB image of any size to pixels [3, crop, crop]."""
        image, target = (image, (self.size, self.size)) if self.square else self._scaled(image)
        if image.size != target:
            image = image.resize(target, INTERPOLATIONS[self.interpolation])
        left, top = (self._half(edge - self.crop) for edge in target)
        box = (left, top, left + self.crop, top + self.crop)
        pixels = np.asarray(image.crop(box), dtype=np.uint8)  # a crop beyond the border is black
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _half(self, margin: int) -> int:
        return round(margin / 2) if self.half_even else margin // 2

    def _scaled(self, image: Image.Image) -> tuple[Image.Image, tuple[int, int]]:
        """The image, or the part of it that is used, and what it is resized to in its own proportions."""
        width, height = image.size
        short, long = min(width, height), max(width, height)
        scaled_long = max(self.size, int(self.size * long / short))
        target = (self.size, scaled_long) if width <= height else (scaled_long, self.size)
        # A strip of 1 x 100,000 pixels would be enlarged to gigabytes; only its middle is used, so cut first.
        return self._without_far_ends(image, target)

    def _without_far_ends(
        self, image: Image.Image, target: tuple[int, int]
    ) -> tuple[Image.Image, tuple[int, int]]:
        """Cuts what lies far outside the centre crop, of images more than 16 times as long as wide."""
        width, height = image.size
        short = min(width, height)
        if max(width, height) <= 16 * short:
            return image, target
        keep = 16 * short
        if width > height:
            left = (width - keep) // 2
            return image.crop((left, 0, left + keep, height)), (16 * self.size, self.size)
        top = (height - keep) // 2
        return image.crop((0, top, width, top + keep)), (self.size, 16 * self.size)
