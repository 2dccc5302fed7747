"""What is read of a GIF before it is decoded, at both sides of each bound."""

from __future__ import annotations

import struct

import pytest

from mass_serve.inputs.errors import CorruptInputError, InputTooLargeError
from mass_serve.inputs.images import ImageLimits, ImageSurvey, survey

LIMITS = ImageLimits(max_pixels=1000)
COMMENT = b"\x21\xfe"


def frame(left: int = 0, top: int = 0, width: int = 7, height: int = 5) -> bytes:
    return b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0)


def gif(*parts: bytes, flags: int = 0) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 7, 5, flags, 0, 0) + b"".join(parts)


def comment(*sizes: int) -> bytes:
    """An extension of blocks so large, of bytes that would mean something elsewhere."""
    return COMMENT + b"".join(bytes([size]) + b"\x2c" * size for size in sizes) + b"\0"


def test_the_size_is_read() -> None:
    assert survey(gif(frame()), LIMITS) == ImageSurvey("GIF", 7, 5, work=35)


@pytest.mark.parametrize(
    ("placed", "size"),
    [
        (frame(0, 0, 3, 2), (7, 5)),
        (frame(4, 3, 3, 2), (7, 5)),
        (frame(5, 3, 3, 2), (8, 5)),
        (frame(4, 4, 3, 2), (7, 6)),
        (frame(0, 0, 20, 30), (20, 30)),
    ],
)
def test_a_first_frame_that_juts_out_makes_the_image_larger(placed: bytes, size: tuple[int, int]) -> None:
    assert survey(gif(placed), LIMITS) == ImageSurvey("GIF", *size, work=size[0] * size[1])


@pytest.mark.parametrize("bits", range(8))
def test_a_palette_comes_before_the_frame(bits: int) -> None:
    palette = b"\x2c" * 3 * 2 ** (bits + 1)
    assert survey(gif(palette, frame(), flags=0x80 | bits), LIMITS).width == 7
    assert survey(gif(frame(), flags=bits), LIMITS).width == 7, "there is none where none is said to be"


@pytest.mark.parametrize(
    "placed",
    [
        frame(width=0),
        frame(height=0),
        b"\x2c",
        b"\x3b",
        b"\0" + frame(),
        b"\0\xfe\0" + frame(),
        b"\x22\xfe\0" + frame(),
        b"",
    ],
)
def test_a_file_without_a_first_frame_is_refused(placed: bytes) -> None:
    with pytest.raises(CorruptInputError):
        survey(gif(placed), LIMITS)


def test_extensions_are_passed_over() -> None:
    assert survey(gif(comment(), comment(1), comment(255, 3, 1), frame()), LIMITS).width == 7


@pytest.mark.parametrize(
    "most",
    [comment(*[1] * 4095), comment(1) * 2048, comment() * 4096],
    ids=["of one extension", "of many", "empty ones"],
)
def test_so_many_blocks_are_read_before_the_frame_and_no_more(most: bytes) -> None:
    """An extension counts as one, and each of its blocks."""
    assert survey(gif(most, frame()), LIMITS).width == 7
    for more in (comment() + most, most + comment()):
        with pytest.raises(InputTooLargeError, match="more than 4096 blocks"):
            survey(gif(more, frame()), LIMITS)
