"""From a decoded image to the pixels that the encoder takes, as CLIP's image processor does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes pixels: shortest edge to `size`, centre `crop`, then `(x / 255 - mean) / std`.

    Resizing and cropping happen here, on 8-bit values, in the decoding threads; the normalisation
    happens on the device, so that an image waits in the queue at a quarter of its float32 size.
    """

    size: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}; got {self.interpolation!r}"
            )

    def preprocess(self, image: Image.Image) -> Tensor:
        """Pixels [3, crop, crop] uint8 of an RGB image of any size."""
        width, height = image.size
        short, long = min(width, height), max(width, height)
        scaled_long = max(self.size, int(self.size * long / short))
        target = (self.size, scaled_long) if width <= height else (scaled_long, self.size)
        # A strip of 1 x 100,000 pixels would be enlarged to gigabytes; only its middle is used, so cut first.
        image, target = self._without_far_ends(image, target)
        if image.size != target:
            image = image.resize(target, INTERPOLATIONS[self.interpolation])
        left, top = (target[0] - self.crop) // 2, (target[1] - self.crop) // 2
        box = (left, top, left + self.crop, top + self.crop)
        pixels = np.asarray(image.crop(box), dtype=np.uint8)  # a crop beyond the border is black
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """`(x / 255 - mean) / std` of pixels [..., 3, H, W] uint8, in float32 on their device."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255.0 - mean) / std

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
