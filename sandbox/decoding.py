"""What a worker process does with an image: decode it, resize it, and cut its middle out."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from mass_serve.inputs.images import FORMATS, ImageSurvey, decode_surveyed
from mass_serve.inputs.preprocessing import INTERPOLATIONS, Resizing

OPTIONS = struct.Struct("<BIIIIB???")
NAMES = tuple(INTERPOLATIONS)


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What the server knows of an image that it sends: what it declares, and how to resize it."""

    surveyed: ImageSurvey
    resizing: Resizing

    def packed(self) -> bytes:
        """Returns the options as bytes."""
        image, resizing = self.surveyed, self.resizing
        size = image.width, image.height
        name = NAMES.index(resizing.interpolation)
        form, target = FORMATS.index(image.format), (resizing.size, resizing.crop)
        how = resizing.square, resizing.half_even, resizing.scaled
        return OPTIONS.pack(form, *size, *target, name, *how)

    @classmethod
    def unpacked(cls, options: bytes) -> DecodeOptions:
        """Reads the bytes of `packed`."""
        form, width, height, size, crop, name, *how = OPTIONS.unpack(options)
        surveyed = ImageSurvey(FORMATS[form], width, height, work=0)
        return cls(surveyed, Resizing(size, crop, NAMES[name], *how))


def decode(data: memoryview, options: bytes) -> memoryview:
    """Returns the pixels [3, crop, crop] uint8 of an image file. Raises CorruptInputError, MemoryError."""
    asked = DecodeOptions.unpacked(options)
    decoded = decode_surveyed(data, asked.surveyed, asked.resizing.least_edge)
    return asked.resizing.pixels(decoded.image, decoded.box).data.cast("B")


def _warm() -> None:
    """Decodes an image of every format, for what Pillow imports when it first needs it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for image_format in FORMATS:
        stream = BytesIO()
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(stream, image_format, exif=exif)
        asked = DecodeOptions(ImageSurvey(image_format, 8, 8, 64), Resizing(4, 4, NAMES[0]))
        decode(memoryview(stream.getvalue()), asked.packed())


decode.warm = _warm  # type: ignore[attr-defined]
