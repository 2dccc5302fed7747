"""From a decoded image to the numbers that the encoder takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor

from mass_serve.inputs.images import ImageLimits, decode_surveyed, survey
from mass_serve.inputs.preprocessing import Resizing
from mass_serve.kernels.transfers import uploaded
from mass_serve.model_store.format.preprocessing import Preprocessing


@dataclass(frozen=True)
class ImagePreprocessor:
    """Makes images into pixels in the way that a store's manifest describes.

    Resizing and cropping happen on 8-bit values, where images are decoded; the normalisation happens on the
    device, so that an image waits in the queue at a quarter of its float32 size.
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

    @property
    def resizing(self) -> Resizing:
        """What is done to an image where it is decoded, without torch."""
        described = self.described
        square, half_even = described.resize == "square", described.crop_rounding == "half_even"
        scaled = described.decode == "scaled"
        return Resizing(self.size, self.crop, described.interpolation, square, half_even, scaled)

    def preprocess_file(self, data: bytes, limits: ImageLimits) -> Tensor:
        """Decodes an image file to pixels [3, crop, crop] uint8. Raises InputError for what is none."""
        resizing = self.resizing
        decoded = decode_surveyed(data, survey(data, limits), resizing.least_edge)
        return torch.from_numpy(resizing.pixels(decoded.image, decoded.box))

    def preprocess(self, image: Image.Image) -> Tensor:
        """Resizes and crops an RGB image of any size to pixels [3, crop, crop] uint8."""
        return torch.from_numpy(self.resizing.pixels(image))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Computes `(x / 255 - mean) / std` of pixels [..., 3, H, W] uint8, in float32 on their device."""
        mean, std = _mean_and_std(self.described.mean, self.described.std, pixels.device)
        normalised: Tensor = (pixels.float() / 255.0 - mean) / std
        return normalised


@lru_cache(maxsize=16)
def _mean_and_std(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Tensor:
    """Both [2, 3, 1, 1] on a device, where they stay: no batch sends them again."""
    return uploaded(torch.tensor([mean, std]), device).view(2, 3, 1, 1)
