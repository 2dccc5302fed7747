"""Whatever Pillow writes in an enabled format is surveyed as what it decodes to."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mass_serve.inputs.images import FORMATS, ImageLimits, decode_image, decode_surveyed, survey
from tests.pictures import encode

LIMITS = ImageLimits(1_000_000, FORMATS)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "PNG": [{}, {"optimize": True}, {"bits": 2}, {"compress_level": 0}],
    "JPEG": [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}, {"restart_marker_blocks": 2}],
    "WEBP": [{}, {"lossless": True}, {"quality": 10}],
    "GIF": [{}, {"interlace": 0}, {"comment": b"x" * 1000}],
    "BMP": [{}],
    "TIFF": [{}, *({"compression": name} for name in ("tiff_lzw", "jpeg", "packbits", "tiff_deflate"))],
}
SIZES = ((1, 1), (37, 23), (64, 64))


def variants() -> Iterator[tuple[str, bytes]]:
    for image_format, all_options in OPTIONS.items():
        for options in all_options:
            for mode in MODES:
                for size in SIZES:
                    try:
                        data = encode(Image.new(mode, size), image_format, **options)
                    except (OSError, ValueError, KeyError, SystemError):
                        continue  # a format has no such mode
                    yield f"{image_format} {mode} {size} {options}", data


def test_every_mode_and_option() -> None:
    seen = set()
    for name, data in variants():
        found = survey(data, LIMITS)
        assert decode_surveyed(data, found).image.size == (found.width, found.height), name
        seen.add(name.split(" (")[0])
    assert len(seen) > 30
    assert {"PNG I;16", "PNG 1", "PNG P", "JPEG CMYK", "GIF P", "BMP 1", "TIFF F", "WEBP RGBA"} <= seen


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("smaller", [False, True])
def test_animations(image_format: str, smaller: bool) -> None:
    frames = [Image.new("RGB", (40, 30), (step * 20, 0, 0)) for step in range(6)]
    if smaller and image_format == "TIFF":
        frames[1:] = [frame.resize((10, 5)) for frame in frames[1:]]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
    assert decode_image(data, LIMITS).size == (40, 30)


def test_an_interlaced_png() -> None:
    """One that is made by hand, in all seven passes: Pillow writes none."""
    pixels = np.arange(9 * 10, dtype=np.uint8).reshape(10, 9)
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    raw = b""
    for top, left, down, right in steps:
        part = pixels[top::down, left::right]
        raw += b"".join(b"\0" + row.tobytes() for row in part if part.size)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 10, 8, 0, 0, 0, 1))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    assert survey(data, LIMITS).work == 2 * 90
    assert np.array_equal(np.asarray(decode_image(data, LIMITS))[:, :, 0], pixels)


def test_a_bmp_in_runs_and_one_from_the_top() -> None:
    def header(height: int, compression: int, bits: int, data: bytes) -> bytes:
        palette = b"".join(bytes((n, n, n, 0)) for n in range(256)) if bits == 8 else b""
        offset = 54 + len(palette)
        info = struct.pack("<IiiHHIIiiII", 40, 4, height, 1, bits, compression, len(data), 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + palette + data

    runs = header(2, 1, 8, bytes((4, 7, 0, 0, 4, 9, 0, 0, 0, 1)))
    assert decode_image(runs, LIMITS).getpixel((0, 0)) == (9, 9, 9)
    from_the_top = header(-2, 0, 24, bytes(range(24)))
    assert decode_image(from_the_top, LIMITS).getpixel((0, 0)) == (2, 1, 0)


@pytest.mark.parametrize("seed", range(6))
def test_a_survey_is_short_whatever_the_bytes_are(seed: int) -> None:
    """Also of what is made to be long: the first bytes are of a format, the rest repeats."""
    starts = [
        b"\x89PNG\r\n\x1a\n" + encode(Image.new("L", (4, 4)))[8:33] + bytes(12) * 400_000,
        b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000,
        b"\xff\xd8" + b"\xff" * 4_000_000,
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10) + b"JUNK\0\0\0\0" * 500_000,
        encode(Image.new("P", (4, 4)), "GIF")[:13] + b"\x21\xfe" + b"\x01x" * 2_000_000,
        encode(Image.new("L", (16, 16)), "JPEG", progressive=True) * 2000,
    ]
    data, started = starts[seed], time.process_time()
    for _ in range(3):
        try:
            survey(data, LIMITS)
        except Exception as error:
            assert type(error).__name__ in ("InputTooLargeError", "CorruptInputError")  # noqa: PT017
    assert time.process_time() - started < 3 * 0.2


def test_a_typical_survey_takes_microseconds() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    files = [encode(Image.fromarray(noise), name) for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]
    started = time.process_time()
    for _ in range(100):
        for data in files:
            survey(data, LIMITS)
    assert (time.process_time() - started) / 500 < 300e-6  # a tenth where the machine has nothing else to do
    assert BytesIO(files[0]).getbuffer().nbytes > 100_000
