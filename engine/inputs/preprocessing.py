"""From a decoded image to the pixels that the encoder takes, as CLIP's image processor does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mass_serve.model_store.format.preprocessing import Interpolation, Preprocessing

INTERPOLATIONS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


@dataclass(frozen=True)
class ImagePreprocessor:
    """Makes images into pixels in the way that a store's manifest describes.

    Resizing and cropping happen here, on 8-bit values, in the decoding threads; the normalisation
    happens on the device, so that an image waits in the queue at a quarter of its float32 size.
    """

    described: Preprocessing

    @property
    def size(self) -> int:
        """The length of the shortest edge after resizing, in pixels."""
        return self.described.size

    @property
    def crop(self) -> int:
        """The edge of the centre crop, in pixels."""
        return self.described.crop

    def preprocess(self, image: Image.Image) -> Tensor:
        """Resizes and crops an RGB image of any size to pixels [3, crop, crop] uint8."""
        width, height = image.size
        short, long = min(width, height), max(width, height)
        scaled_long = max(self.size, int(self.size * long / short))
        target = (self.size, scaled_long) if width <= height else (scaled_long, self.size)
        # A strip of 1 x 100,000 pixels would be enlarged to gigabytes; only its middle is used, so cut first.
        image, target = self._without_far_ends(image, target)
        if image.size != target:
            image = image.resize(target, INTERPOLATIONS[self.described.interpolation])
        left, top = (target[0] - self.crop) // 2, (target[1] - self.crop) // 2
        box = (left, top, left + self.crop, top + self.crop)
        pixels = np.asarray(image.crop(box), dtype=np.uint8)  # a crop beyond the border is black
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Computes `(x / 255 - mean) / std` of pixels [..., 3, H, W] uint8, in float32 on their device."""
        mean = torch.tensor(self.described.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.described.std, device=pixels.device).view(3, 1, 1)
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
