"""The preprocessing section of a manifest: how an image becomes pixels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mass_serve.model_store.format.field_types import Size, StrictModel

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
# Far beyond any that was ever used, and float32 computes with all of them.
Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]

# No model resizes images to much more than it takes of them.
MOST_ENLARGED = 4
Resize = Literal["shortest_edge", "square"]
SHORTEST_EDGE: Resize = "shortest_edge"
# What half of an odd margin around the crop becomes: transformers rounds it down, torchvision to even.
CropRounding = Literal["down", "half_even"]
DOWN: CropRounding = "down"


class Preprocessing(StrictModel):
    """Shortest edge to `size` pixels, centre crop to `crop`, then `(x / 255 - mean) / std`.

    With `resize` square the image becomes `size` pixels wide and high, whatever its shape.
    """

    size: Size
    crop: Size
    interpolation: Interpolation
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    # Format version 1 has neither of these keys.
    resize: Resize = Field(default=SHORTEST_EDGE, exclude_if=SHORTEST_EDGE.__eq__)
    crop_rounding: CropRounding = Field(default=DOWN, exclude_if=DOWN.__eq__)

    @model_validator(mode="after")
    def _size_is_moderate(self) -> Preprocessing:
        """An image is resized before it is cropped, and may be sixteen times as long as it is wide."""
        if self.size > MOST_ENLARGED * self.crop:
            raise ValueError(f"size: must be at most {MOST_ENLARGED} times the crop, which is {self.crop}")
        return self
