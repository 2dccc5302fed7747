"""From the bytes of a file to an upright 8-bit RGB image, trusting none of them.

The pixel count is read from the header and checked before anything is decoded. What is not plain 8-bit RGB
is converted as a person would see it: 16-bit values are scaled rather than clipped, transparency is laid on
white, EXIF rotation is applied, and of an animation the first frame is taken. (CLIP's own pipeline is
`convert("RGB")`, which shows whatever colour hides under the transparent pixels; for opaque 8-bit images the
two agree.)
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mass_serve.engine.inputs.errors import (
    CorruptInputError,
    EmptyInputError,
    InputTooLargeError,
    UnknownFormatError,
)

# Pillow reads forty formats, some by calling other programs; these are the ones that people send.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
FORMATS_IN_WORDS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """The image in `data`, RGB and upright.

    Raises UnknownFormatError for an unknown format, InputTooLargeError beyond `max_pixels`, and
    CorruptInputError for a file that does not decode.
    """
    return decoded(opened(data, max_pixels))


def decoded(image: Image.Image) -> Image.Image:
    """The RGB image behind a header that `opened` has read. Raises CorruptInputError."""
    try:
        image.load()
        return _to_rgb(_upright(image))
    # Pillow's decoders raise nearly any exception on corrupt input; all of them mean the same to the caller.
    except Exception as error:
        raise CorruptInputError(
            f"The {image.format} image is truncated or corrupt; send the whole file."
        ) from error


def opened(data: bytes, max_pixels: int) -> Image.Image:
    """Reads the header alone. Raises the errors of `decode_image`."""
    if not data:
        raise EmptyInputError("The image is empty; send the bytes of an image file.")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UnknownFormatError(
            f"This is not an image that can be read; send a {FORMATS_IN_WORDS} file."
        ) from error
    # A warning is raised too where the interpreter runs with warnings as errors.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputTooLargeError(
            f"The image has more than {max_pixels} pixels, which is the limit; send a smaller one."
        ) from error
    except Exception as error:
        raise CorruptInputError("The image's header is corrupt; send the whole file.") from error
    width, height = image.size
    if width * height > max_pixels:
        raise InputTooLargeError(
            f"The image has {width} x {height} pixels, the limit is {max_pixels} in all; send a smaller one."
        )
    return image


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
    return image.convert("RGB")


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
        return ImageOps.exif_transpose(image)
    except Exception:
        return image
