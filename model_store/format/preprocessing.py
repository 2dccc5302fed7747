"""The preprocessing section of a manifest: how an image becomes pixels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mass_serve.model_store.format.field_types import Size, StrictModel

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Channels = tuple[float, float, float]
Deviation = Annotated[float, Field(gt=0)]


class Preprocessing(StrictModel):
    """Shortest edge to `size` pixels, centre crop to `crop`, then `(x / 255 - mean) / std`."""

    size: Size
    crop: Size
    interpolation: Interpolation
    mean: Channels
    std: tuple[Deviation, Deviation, Deviation]
