"""Image files for the tests, good and bad."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image

Colour = tuple[int, int, int]


def encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    stream = BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def picture(red: int, green: int = 0, size: tuple[int, int] = (16, 16)) -> bytes:
    """A PNG of one colour; the fake engine answers its red value."""
    return encode(Image.new("RGB", size, (red, green, 0)))


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A valid black-and-white PNG of a few kB that would take gigabytes as RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def corner(image: Image.Image) -> Any:
    """The colour at the top left."""
    return image.getpixel((0, 0))
