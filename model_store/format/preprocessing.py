"""The preprocessing section of a manifest: how an image becomes pixels, or a text tokens."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

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
# How much of a JPEG is decoded: all of it, or a half, quarter or eighth of its edges where that is enough.
Decode = Literal["exact", "scaled"]
EXACT: Decode = "exact"
# Which end of a text with too many tokens is cut off.
CutEnd = Literal["right", "left"]
RIGHT: CutEnd = "right"


class Preprocessing(StrictModel):
    """Shortest edge to `size` pixels, centre crop to `crop`, then `(x / 255 - mean) / std`.

    With `resize` square the image becomes `size` pixels wide and high, whatever its shape.
    """

    size: Size
    crop: Size
    interpolation: Interpolation
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    # Format version 1 has none of these keys.
    resize: Resize = Field(default=SHORTEST_EDGE, exclude_if=SHORTEST_EDGE.__eq__)
    crop_rounding: CropRounding = Field(default=DOWN, exclude_if=DOWN.__eq__)
    decode: Decode = Field(default=EXACT, exclude_if=EXACT.__eq__)

    @property
    def needs_version_2(self) -> bool:
        """Tells whether format version 1 has no words for it."""
        return (self.resize, self.crop_rounding, self.decode) != (SHORTEST_EDGE, DOWN, EXACT)

    @model_validator(mode="after")
    def _size_is_moderate(self) -> Preprocessing:
        """An image is resized before it is cropped, and may be sixteen times as long as it is wide."""
        if self.size > MOST_ENLARGED * self.crop:
            raise ValueError(f"size: must be at most {MOST_ENLARGED} times the crop, which is {self.crop}")
        return self


class TextPreprocessing(StrictModel):
    """What is taken of a text: its first `max_tokens` tokens, or its last where the left end is cut off."""

    kind: Literal["text"]
    max_tokens: Size
    # Earlier stores have no such key.
    cut_end: CutEnd = Field(default=RIGHT, exclude_if=RIGHT.__eq__)

    needs_version_2: ClassVar = True


def _read_by(value: object) -> str:
    """Tells which of them an object is; that of images has no `kind`, as format version 1 has no other."""
    told = "kind" in value if isinstance(value, dict) else isinstance(value, TextPreprocessing)
    return "<text>" if told else "<image>"


AnyPreprocessing = Annotated[
    Annotated[Preprocessing, Tag("<image>")] | Annotated[TextPreprocessing, Tag("<text>")],
    Discriminator(_read_by),
]
