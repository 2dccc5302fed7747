"""From the bytes of a file to an upright 8-bit RGB image, trusting none of them.

The pixel count is read from the header and checked before anything is decoded. What is not plain 8-bit RGB
is converted as a person would see it: 16-bit values are scaled rather than clipped, transparency is laid on
white, EXIF rotation is applied, and of an animation the first frame is taken. (CLIP's own pipeline is
`convert("RGB")`, which shows whatever colour hides under the transparent pixels; for opaque 8-bit images the
two agree.)
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from server.errors import BadImageError, BadRequestError, NotAnImageError, ServiceError, TooLargeError
from server.preprocessing import Preprocessing
from server.threads import Threads

# Pillow reads forty formats, some by calling other programs; these are the ones that people send.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
FORMATS_IN_WORDS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"

# Beyond it an image counts as large: decoding takes ten bytes per pixel, and more for unusual modes.
LARGE_PIXELS = 12_000_000


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """The image in `data`, RGB and upright.

    Raises NotAnImageError for an unknown format, TooLargeError beyond `max_pixels`, and BadImageError for a
    file that does not decode.
    """
    return _decoded(_opened(data, max_pixels))


def _decoded(image: Image.Image) -> Image.Image:
    """Reads what follows the header."""
    try:
        image.load()
        return _to_rgb(_upright(image))
    # Pillow's decoders raise nearly any exception on corrupt input; all of them mean the same to the caller.
    except Exception as error:
        raise BadImageError(
            f"The {image.format} image is truncated or corrupt; send the whole file."
        ) from error


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """Reads the header alone."""
    if not data:
        raise BadRequestError("The image is empty; send the bytes of an image file.")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise NotAnImageError(
            f"This is not an image that can be read; send a {FORMATS_IN_WORDS} file."
        ) from error
    # A warning is raised too where the interpreter runs with warnings as errors.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(
            f"The image has more than {max_pixels} pixels, which is the limit; send a smaller one."
        ) from error
    except Exception as error:
        raise BadImageError("The image's header is corrupt; send the whole file.") from error
    width, height = image.size
    if width * height > max_pixels:
        raise TooLargeError(
            f"The image has {width} x {height} pixels, the limit is {max_pixels} in all; send a smaller one."
        )
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode, transparency laid on white."""
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
    """32-bit and float images have no agreed range: theirs is stretched to 0...255."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the image holds NaN or infinite values")
    low, high = values.min(), values.max()
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Rotated as its EXIF orientation says; an image whose EXIF data are broken is taken as it lies."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


class DecodePool:
    """Threads that decode images, off the event loop; Pillow's decoders release the interpreter lock.

    Large images have a thread of their own: one at a time, so that many at once cannot exhaust the memory,
    and beside the others, which do not wait for them.
    """

    def __init__(self, threads: int, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._threads = Threads(threads, "decode")
        self._thread_for_large = Threads(1, "decode-large")
        # Now, and not with the first image, when there may be no descriptor left to open its formats with.
        Image.init()
        # Pillow's warnings are about callers' files: nothing that an operator could act on.
        warnings.filterwarnings("ignore", module=r"PIL\b")

    @property
    def busy(self) -> bool:
        """Whether an image is being decoded."""
        return self._threads.busy or self._thread_for_large.busy

    async def pixels(self, files: Sequence[bytes], preprocessing: Preprocessing) -> list[Tensor]:
        """Decodes all files at once, [3, crop, crop] uint8 each; the error of a bad one says which it was."""

        async def one(index: int, data: bytes) -> Tensor:
            try:
                return await self._decoded(data, preprocessing)
            except ServiceError as error:
                if len(files) == 1:
                    raise
                raise type(error)(f"images[{index}]: {error}") from error

        running = [asyncio.ensure_future(one(index, data)) for index, data in enumerate(files)]
        try:
            return await asyncio.gather(*running)
        finally:
            for decoding in running:  # after the first bad image nobody wants the others
                decoding.cancel()

    async def _decoded(self, data: bytes, preprocessing: Preprocessing) -> Tensor:
        def decode() -> Tensor | Image.Image:
            image = _opened(data, self._max_pixels)
            large = image.width * image.height > LARGE_PIXELS
            return image if large else preprocessing.preprocess(_decoded(image))

        result = await self._threads.run(decode)
        if isinstance(result, Tensor):
            return result
        return await self._thread_for_large.run(lambda: preprocessing.preprocess(_decoded(result)))

    def close(self) -> None:
        """Drops what waits; what runs is not waited for."""
        self._threads.close()
        self._thread_for_large.close()
