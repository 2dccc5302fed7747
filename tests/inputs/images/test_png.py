"""What is read of a PNG before it is decoded, at both sides of each bound."""

from __future__ import annotations

import struct

import pytest

from mass_serve.inputs.errors import CorruptInputError, InputTooLargeError
from mass_serve.inputs.images import ImageLimits, ImageSurvey, survey

LIMITS = ImageLimits(max_pixels=1000)
# By the PNG specification: colour type, and the bits of a sample.
ALLOWED = {(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)}
ALLOWED |= {(4, 8), (4, 16), (6, 8), (6, 16)}
END = b"\0\0\0\0IEND\xae\x42\x60\x82"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + b"sum."


def png(
    *more: bytes, size: tuple[int, int] = (7, 5), depth: int = 8, colour: int = 2, rest: bytes = b"\0\0\0"
) -> bytes:
    """A file whose header is followed by `more`; `rest` is compression, filter and interlace."""
    header = struct.pack(">IIBB", *size, depth, colour) + rest
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more)


def test_the_size_is_read() -> None:
    assert survey(png(END), LIMITS) == ImageSurvey("PNG", 7, 5, work=35)


def test_an_interlaced_one_is_put_together_once_more() -> None:
    assert survey(png(END, rest=b"\0\0\1"), LIMITS) == ImageSurvey("PNG", 7, 5, work=70)


def test_colours_have_the_bits_that_the_format_gives_them() -> None:
    for colour in range(9):
        for depth in range(18):
            data = png(END, depth=depth, colour=colour)
            if (colour, depth) in ALLOWED:
                assert survey(data, LIMITS).work == 35
            else:
                with pytest.raises(CorruptInputError):
                    survey(data, LIMITS)


@pytest.mark.parametrize("rest", [b"\1\0\0", b"\0\1\0", b"\0\0\2", b"\0\0\xff", b"\1\1\0"])
def test_methods_that_do_not_exist_are_refused(rest: bytes) -> None:
    with pytest.raises(CorruptInputError):
        survey(png(END, rest=rest), LIMITS)


@pytest.mark.parametrize("start", [b"\0\0\0\x0eIHDR", b"\0\0\0\x0cIHDR", b"\0\0\0\x0dIDAT"])
def test_the_header_is_the_first_chunk(start: bytes) -> None:
    data = png(END)
    with pytest.raises(CorruptInputError):
        survey(data[:8] + start + data[16:], LIMITS)


def test_a_file_that_breaks_off_is_left_to_its_decoder() -> None:
    data = png(chunk(b"IDAT", b"12345"))
    for length in range(len(png()), len(data) + 1):
        assert survey(data[:length], LIMITS).width == 7


def test_a_header_that_breaks_off_is_refused() -> None:
    for length in range(9, 8 + 8 + 13):
        with pytest.raises(CorruptInputError):
            survey(png()[:length], LIMITS)


def test_ten_thousand_chunks_are_read_and_no_more() -> None:
    """Two of them are the first and the last."""
    assert survey(png(chunk(b"tEXt") * 9_998, END), LIMITS).width == 7
    with pytest.raises(InputTooLargeError, match="more than 10000 chunks"):
        survey(png(chunk(b"tEXt") * 9_999, END), LIMITS)


def test_chunks_are_counted_whatever_is_in_them() -> None:
    with pytest.raises(InputTooLargeError, match="more than 10000 chunks"):
        survey(png(chunk(b"tEXt", b"abc") * 10_000), LIMITS)
    assert survey(png(chunk(b"tEXt", bytes(12) * 11_000), END), LIMITS).width == 7, "data are no chunks"


def test_what_follows_the_end_is_not_looked_at() -> None:
    assert survey(png(END, chunk(b"tEXt") * 20_000), LIMITS).width == 7
