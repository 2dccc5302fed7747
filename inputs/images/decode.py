"""From the bytes of a file to an upright 8-bit RGB image, trusting none of them.

What a file declares is checked before anything is decoded. What is not plain 8-bit RGB is converted as a
person would see it: 16-bit values are scaled rather than clipped, transparency is laid on white, EXIF
rotation is applied, and of an animation the first frame is taken. (CLIP's own pipeline is `convert("RGB")`,
which shows whatever colour hides under the transparent pixels; for opaque 8-bit images the two agree.)
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image

from mass_serve.inputs.errors import CorruptInputError
from mass_serve.inputs.images.survey import survey
from mass_serve.inputs.images.surveyed import ImageLimits, ImageSurvey
from mass_serve.inputs.preprocessing import LONGEST_SHAPE

# Decoding takes about ten bytes a pixel, more for unusual modes.
BYTES_PER_PIXEL = 10
# Of its size: what the decoder of JPEG can make.
PARTS = (8, 4, 2)
# What turns an image of each orientation of EXIF upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The orientations whose upright image has the first row as a column, ends on its left where the first
# column was, and ends above where the first row was.
TRANSPOSED, FROM_THE_RIGHT, FROM_BELOW = {5, 6, 7, 8}, {2, 3, 6, 7}, {3, 4, 7, 8}


@dataclass(frozen=True, slots=True)
class Decoded:
    """What was decoded of a file."""

    image: Image.Image  # RGB and upright
    # Left, top, right and bottom of what the file shows, where the image has a part of a pixel more.
    box: tuple[float, float, float, float] | None = None


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """The image in `data`, RGB and upright. Raises the errors of `survey`, and those of `decode_surveyed`."""
    return decode_surveyed(data, survey(data, limits)).image


def decode_surveyed(
    data: bytes | memoryview, surveyed: ImageSurvey, least_edge: int | None = None
) -> Decoded:
    """The image in `data`, which must be what the survey of the same bytes found.

    A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size at which its shortest edge has
    `least_edge` pixels, if that is given: its decoder then computes no others.

    Raises CorruptInputError for a file that does not decode, and MemoryError.
    """
    try:
        image = Image.open(BytesIO(data), formats=(surveyed.format,))
        part = 1 if least_edge is None else _part_to_decode(image, least_edge)
        image.load()
        _check_size(image, surveyed, part)
        orientation = _orientation(image)
        upright = _to_rgb(_upright(image, orientation))
        if part == 1:
            return Decoded(upright)
        shown = surveyed.width / part, surveyed.height / part
        return Decoded(upright, _box(image.size, shown, orientation))
    except MemoryError:
        raise
    # Pillow's decoders raise nearly any exception on corrupt input; all of them mean the same to the caller.
    except Exception as error:
        _raise_if_memory_is_short(surveyed)
        raise CorruptInputError(
            f"The {surveyed.format} image is truncated or corrupt; send the whole file."
        ) from error


def _part_to_decode(image: Image.Image, least_edge: int) -> int:
    """Tells the decoder of a JPEG to make a part of its size alone; returns 2, 4 or 8 for that, 1 for all."""
    short, long = sorted(image.size)
    # Of strips most is cut off before they are resized.
    # Of several pictures in a JPEG, which cameras make, Pillow says MPO; the first is what is decoded.
    if image.format not in ("JPEG", "MPO") or long > LONGEST_SHAPE * short:
        return 1
    part = next((part for part in PARTS if short // part >= least_edge), 1)
    if part > 1:
        image.draft(None, (image.width // part, image.height // part))
    return part


def _check_size(image: Image.Image, surveyed: ImageSurvey, part: int) -> None:
    """Raises ValueError where the decoder made another size than was declared and paid for."""
    declared = -(-surveyed.width // part), -(-surveyed.height // part)
    # Of a TIFF with an orientation Pillow gives the size after turning.
    turned = declared[::-1] if surveyed.format == "TIFF" else declared
    if image.size not in (declared, turned):
        raise ValueError(f"{image.size} pixels decoded, {declared} declared")


def _box(
    size: tuple[int, int], shown: tuple[float, float], orientation: int
) -> tuple[float, float, float, float]:
    """Where what an image shows lies in it once it is upright; before, that is at its left and top."""
    if orientation in TRANSPOSED:
        size, shown = size[::-1], shown[::-1]
    left = size[0] - shown[0] if orientation in FROM_THE_RIGHT else 0.0
    top = size[1] - shown[1] if orientation in FROM_BELOW else 0.0
    return left, top, left + shown[0], top + shown[1]


def _raise_if_memory_is_short(surveyed: ImageSurvey) -> None:
    """Raises MemoryError where the memory for the image is not there: decoders call that a broken file."""
    bytearray(surveyed.width * surveyed.height * BYTES_PER_PIXEL)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to 8-bit RGB, transparency laid on white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _stretched(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(rgba, mask=rgba.getchannel("A"))
        return rgb
    return image if image.mode == "RGB" else image.convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """Stretches the range of a 32-bit or float image, for which none is agreed on, to 0...255."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the image holds NaN or infinite values")
    low, high = values.min(), values.max()
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _orientation(image: Image.Image) -> int:
    """Returns how an image is turned, 1 to 8 as in EXIF; 1, not at all, where its EXIF data are broken."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:
        return 1
    return found if found in UPRIGHT else 1
