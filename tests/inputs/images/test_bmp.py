"""What is read of a BMP before it is decoded, at both sides of each bound."""

from __future__ import annotations

import struct

import pytest

from mass_serve.inputs.errors import CorruptInputError
from mass_serve.inputs.images import ImageLimits, ImageSurvey, survey

LIMITS = ImageLimits(max_pixels=1000)


def bmp(
    data: int, size: tuple[int, int] = (7, 5), bits: int = 24, compression: int = 0, header: int = 40
) -> bytes:
    """A file of Windows with so many bytes of data."""
    start = struct.pack("<IiiHHI", header, *size, 1, bits, compression)
    offset = 14 + header
    return (b"BM" + struct.pack("<IHHI", 0, 0, 0, offset) + start).ljust(offset, b"\0") + bytes(data)


def old_bmp(data: int, size: tuple[int, int] = (7, 5), bits: int = 24) -> bytes:
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 26) + struct.pack("<IHHHH", 12, *size, 1, bits) + bytes(data)


def refused(data: bytes) -> bool:
    try:
        survey(data, LIMITS)
    except CorruptInputError:
        return True
    return False


def test_the_size_is_read() -> None:
    assert survey(bmp(24 * 5), LIMITS) == ImageSurvey("BMP", 7, 5, work=35)
    assert survey(old_bmp(24 * 5), LIMITS) == ImageSurvey("BMP", 7, 5, work=35)


def test_rows_may_go_from_the_top() -> None:
    assert survey(bmp(24 * 5, size=(7, -5)), LIMITS) == ImageSurvey("BMP", 7, 5, work=35)


@pytest.mark.parametrize("size", [(0, 5), (-1, 5), (-7, 5), (7, 0)])
def test_there_is_no_image_without_pixels(size: tuple[int, int]) -> None:
    assert refused(bmp(10_000, size=size))


def test_one_pixel_is_an_image() -> None:
    assert survey(bmp(3, size=(1, 1)), LIMITS).work == 1


def test_headers_have_the_sizes_that_the_format_has_had() -> None:
    taken = [size for size in range(16, 130) if not refused(bmp(1000, header=size))]
    assert taken == [40, 52, 56, 64, 108, 124]
    assert refused(bmp(1000, header=11))
    assert refused(bmp(1000, header=13))


def test_pixels_have_the_bits_that_the_format_has() -> None:
    assert [bits for bits in range(40) if not refused(bmp(1000, bits=bits))] == [1, 4, 8, 16, 24, 32]
    assert [bits for bits in range(40) if not refused(old_bmp(1000, bits=bits))] == [1, 4, 8, 16, 24, 32]


def test_compressions_are_those_that_are_decoded() -> None:
    """3 and 6 only say where in a pixel its colours are; 4 and 5 would be whole files of other formats."""
    assert [kind for kind in range(20) if not refused(bmp(1000, bits=32, compression=kind))] == [0, 3, 6]
    assert [bits for bits in range(40) if not refused(bmp(99, bits=bits, compression=1))] == [8]
    assert [bits for bits in range(40) if not refused(bmp(99, bits=bits, compression=2))] == [4]


@pytest.mark.parametrize(
    ("width", "height", "bits", "least"),
    [
        (7, 5, 24, 4 * 24 + 21),  # rows begin at multiples of 4 bytes; the last may end before
        (7, 1, 24, 21),
        (8, 2, 24, 48),
        (9, 2, 24, 28 + 27),
        (7, 5, 32, 140),
        (7, 5, 16, 4 * 16 + 14),
        (5, 2, 8, 8 + 5),
        (3, 2, 4, 4 + 2),
        (9, 2, 4, 8 + 5),
        (1, 2, 1, 4 + 1),
        (8, 2, 1, 4 + 1),
        (9, 2, 1, 4 + 2),
        (33, 2, 1, 8 + 5),
    ],
)
def test_all_rows_are_there(width: int, height: int, bits: int, least: int) -> None:
    assert not refused(bmp(least, size=(width, height), bits=bits))
    assert refused(bmp(least - 1, size=(width, height), bits=bits))


def test_rows_begin_where_the_header_says() -> None:
    data = bmp(24 * 5)
    later = data[:10] + struct.pack("<I", 54 + 24) + data[14:]
    assert refused(later)
    assert not refused(later + bytes(24))


@pytest.mark.parametrize(("bits", "compression"), [(8, 1), (4, 2)])
@pytest.mark.parametrize(
    ("data", "steps"),
    [(0, 0), (1, 0), (2, 1), (3, 1), (20, 10), (69, 34), (70, 35), (72, 35), (10_000, 35)],
)
def test_runs_cost_by_their_number(bits: int, compression: int, data: int, steps: int) -> None:
    """Each takes two bytes and gives a pixel or more; undoing one costs as much as 100 pixels do."""
    found = survey(bmp(data, bits=bits, compression=compression), LIMITS)
    assert found == ImageSurvey("BMP", 7, 5, work=35 + 100 * steps)


def test_runs_that_begin_behind_the_end_cost_nothing() -> None:
    data = bmp(0, bits=8, compression=1)
    assert survey(data[:10] + struct.pack("<I", 1000) + data[14:], LIMITS).work == 35


def test_a_header_that_breaks_off_is_refused() -> None:
    for whole, end in ((bmp(0), 34), (old_bmp(0), 26)):
        assert all(refused(whole[:length]) for length in range(2, end))
