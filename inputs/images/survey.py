"""What an image file declares, told by bounded readers of our own: no decoder has touched it.

    found = survey(data, ImageLimits(max_pixels=50_000_000))

Each reader takes a bounded number of steps, whatever the bytes are, and refuses what its decoder would pay
for without showing it: scans, chunks, strips and tiles without end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from mass_serve.inputs.errors import EmptyInputError, InputTooLargeError, UnknownFormatError
from mass_serve.inputs.images import bmp, gif, jpeg, png, tiff, webp
from mass_serve.inputs.images.surveyed import FORMATS, ImageLimits, ImageSurvey, corrupt

READERS: dict[str, Callable[[bytes, int], ImageSurvey]] = {
    "PNG": png.survey_png,
    "JPEG": jpeg.survey_jpeg,
    "WEBP": webp.survey_webp,
    "GIF": gif.survey_gif,
    "BMP": bmp.survey_bmp,
    "TIFF": tiff.survey_tiff,
}


def survey(data: bytes, limits: ImageLimits) -> ImageSurvey:
    """Reads what a file declares.

    Raises EmptyInputError, UnknownFormatError for a format that is unknown or not among `limits.formats`,
    CorruptInputError for a header that cannot be, and InputTooLargeError beyond `limits.max_pixels` or the
    bounds of its format.
    """
    if not data:
        raise EmptyInputError("The image is empty; send the bytes of an image file.")
    image_format = format_of(data)
    if image_format not in limits.formats:
        raise _not_read(image_format, limits.formats)
    try:
        found = READERS[image_format](data, limits.max_pixels)
    except (struct.error, IndexError, OverflowError) as error:
        raise corrupt(image_format) from error
    if not found.width or not found.height:
        raise corrupt(image_format)
    if found.width * found.height > limits.max_pixels:
        raise InputTooLargeError(
            f"The image has {found.width} x {found.height} pixels, the limit is {limits.max_pixels} in all;"
            " send a smaller one."
        )
    return found


def format_of(data: bytes) -> str:
    """Returns the format that a file's first bytes are of; an empty text for none of those known here."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    return "TIFF" if data.startswith(tiff.MAGICS) else ""


def _not_read(image_format: str, formats: tuple[str, ...]) -> UnknownFormatError:
    names = f"{', '.join(formats[:-1])} or {formats[-1]}" if formats[1:] else formats[0]
    if image_format in FORMATS:
        return UnknownFormatError(
            f"{image_format} images are not read here; send a {names} file, or have the server's setting"
            f" image_formats name {image_format}."
        )
    return UnknownFormatError(f"This is not an image that can be read; send a {names} file.")
