"""From the bytes of a file to an upright 8-bit RGB image, trusting none of them.

What a file declares is checked before anything is decoded. What is not plain 8-bit RGB is converted as a
person would see it: 16-bit values are scaled rather than clipped, transparency is laid on white, EXIF
rotation is applied, and of an animation the first frame is taken. (CLIP's own pipeline is `convert("RGB")`,
which shows whatever colour hides under the transparent pixels; for opaque 8-bit images the two agree.)
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from mass_serve.inputs.errors import CorruptInputError
from mass_serve.inputs.images.survey import survey
from mass_serve.inputs.images.surveyed import ImageLimits, ImageSurvey

# Decoding takes about ten bytes a pixel, more for unusual modes.
BYTES_PER_PIXEL = 10


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """The image in `data`, RGB and upright. Raises the errors of `survey`, and those of `decode_surveyed`."""
    return decode_surveyed(data, survey(data, limits))


def decode_surveyed(data: bytes | memoryview, surveyed: ImageSurvey) -> Image.Image:
    """The image in `data`, RGB and upright, which must be what the survey of the same bytes found.

    Raises CorruptInputError for a file that does not decode, and MemoryError.
    """
    try:
        image = Image.open(BytesIO(data), formats=(surveyed.format,))
        image.load()
        _check_size(image, surveyed)
        return _to_rgb(_upright(image))
    except MemoryError:
        raise
    # Pillow's decoders raise nearly any exception on corrupt input; all of them mean the same to the caller.
    except Exception as error:
        _raise_if_memory_is_short(surveyed)
        raise CorruptInputError(
            f"The {surveyed.format} image is truncated or corrupt; send the whole file."
        ) from error


def _check_size(image: Image.Image, surveyed: ImageSurvey) -> None:
    """Raises ValueError where the decoder made another size than was declared and paid for."""
    declared = surveyed.width, surveyed.height
    # Of a TIFF with an orientation Pillow gives the size after turning.
    turned = declared[::-1] if surveyed.format == "TIFF" else declared
    if image.size not in (declared, turned):
        raise ValueError(f"{image.size} pixels decoded, {declared} declared")


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


def _upright(image: Image.Image) -> Image.Image:
    """Rotates an image as its EXIF orientation says; one whose EXIF data are broken stays as it is."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image  # not the copy that Pillow would make
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:
        return image
