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


# An image that is decoded at a part of its size has at least so many times the pixels that are left of its
# shortest edge: the resampling that follows then averages over what it is given, as over the whole image.
SCALED_MARGIN = 2
# Of an image that is more times as long as wide the far ends are cut off before it is resized.
LONGEST_SHAPE = 16


@dataclass(frozen=True)
class Resizing:
    """Resizes the shortest edge to `size` pixels, or both, and cuts the middle of `crop` pixels out."""

    size: int
    crop: int
    interpolation: str  # one of INTERPOLATIONS
    square: bool = False  # both edges become `size` pixels long
    half_even: bool = False  # half of an odd margin is rounded to an even number, and not down
    scaled: bool = False  # a file may be decoded at a part of its size

    @property
    def least_edge(self) -> int | None:
        """How long the shortest edge of a decoded file must be, in pixels; None: as long as in the file."""
        return SCALED_MARGIN * self.size if self.scaled else None

    def pixels(
        self, image: Image.Image, box: tuple[float, float, float, float] | None = None
    ) -> NDArray[np.uint8]:
        """Resizes and crops an RGB image of any size to pixels [3, crop, crop].

        `box` is what counts of an image that is no strip: left, top, right and bottom; all of it by default.
        """
        if self.square:
            target = self.size, self.size
        elif box is None:
            # Only the middle is used of a strip, which would be enlarged to gigabytes: so it is cut first.
            target = self._target(*image.size)
            image, target = self._without_far_ends(image, target)
        else:
            target = self._target(box[2] - box[0], box[3] - box[1])
        if image.size != target:
            image = image.resize(target, INTERPOLATIONS[self.interpolation], box)
        left, top = (self._half(edge - self.crop) for edge in target)
        cut = (left, top, left + self.crop, top + self.crop)
        pixels = np.asarray(image.crop(cut), dtype=np.uint8)  # a crop beyond the border is black
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _half(self, margin: int) -> int:
        return round(margin / 2) if self.half_even else margin // 2

    def _target(self, width: float, height: float) -> tuple[int, int]:
        """What an image of that size is resized to, in its own proportions."""
        short, long = min(width, height), max(width, height)
        scaled_long = max(self.size, int(self.size * long / short))
        return (self.size, scaled_long) if width <= height else (scaled_long, self.size)

    def _without_far_ends(
        self, image: Image.Image, target: tuple[int, int]
    ) -> tuple[Image.Image, tuple[int, int]]:
        """Cuts what lies far outside the centre crop, of images beyond LONGEST_SHAPE."""
        width, height = image.size
        short = min(width, height)
        if max(width, height) <= LONGEST_SHAPE * short:
            return image, target
        keep = LONGEST_SHAPE * short
        if width > height:
            left = (width - keep) // 2
            return image.crop((left, 0, left + keep, height)), (LONGEST_SHAPE * self.size, self.size)
        top = (height - keep) // 2
        return image.crop((0, top, width, top + keep)), (self.size, LONGEST_SHAPE * self.size)
