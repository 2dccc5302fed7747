"""What may be sent, and what a file says of itself before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mass_serve.inputs.errors import CorruptInputError, InputTooLargeError

ImageFormat = Literal["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]

# Pillow reads forty formats, some by calling other programs; these are the ones that people send.
DEFAULT_FORMATS: tuple[ImageFormat, ...] = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# The last has many forms and compressions, and few callers: it is read where somebody asks for it.
FORMATS: tuple[ImageFormat, ...] = (*DEFAULT_FORMATS, "TIFF")

# Parts of a file, such as chunks, strips and tiles: each costs its decoder time, however empty it is.
MOST_PARTS = 10_000


@dataclass(frozen=True)
class ImageLimits:
    """Holds what an image may be."""

    max_pixels: int
    formats: tuple[str, ...] = DEFAULT_FORMATS


@dataclass(frozen=True, slots=True)
class ImageSurvey:
    """Holds what a file declares; nothing of it is decoded yet."""

    format: str
    width: int  # as it is stored, before any rotation
    height: int
    work: int  # pixels that a decoder must produce in all


def too_many(parts: str, limit: int) -> InputTooLargeError:
    """Returns the error for a file of more parts than are read."""
    return InputTooLargeError(f"The image has more than {limit} {parts}, which is the limit; save it anew.")


def corrupt(image_format: str) -> CorruptInputError:
    """Returns the error for a header that cannot be."""
    return CorruptInputError(f"The {image_format} image's header is cut off or corrupt; send the whole file.")
