"""What is read of a WebP before it is decoded, at both sides of each bound."""

from __future__ import annotations

import struct

import pytest

from mass_serve.inputs.errors import CorruptInputError, InputTooLargeError
from mass_serve.inputs.images import ImageLimits, ImageSurvey, survey

LIMITS = ImageLimits(max_pixels=1 << 50)
STILL, ANIMATED = 0x10, 0x02


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def uint24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def lossy(width: int, height: int, code: bytes = b"\x9d\x01\x2a") -> bytes:
    return chunk(b"VP8 ", b"tag" + code + struct.pack("<HH", width, height))


def lossless(width: int, height: int, signature: int = 0x2F, more: int = 0) -> bytes:
    bits = width - 1 | (height - 1) << 14 | more << 28
    return chunk(b"VP8L", struct.pack("<BI", signature, bits))


def canvas(*parts: bytes, size: tuple[int, int] = (7, 5), flags: int = STILL) -> bytes:
    head = bytes([flags, 0, 0, 0]) + uint24(size[0] - 1) + uint24(size[1] - 1)
    return chunk(b"VP8X", head) + b"".join(parts)


def frame(left: int, top: int, width: int, height: int) -> bytes:
    """Both offsets are kept as halves."""
    place = uint24(left // 2) + uint24(top // 2) + uint24(width - 1) + uint24(height - 1)
    return chunk(b"ANMF", place + bytes(4) + lossy(1, 1))


def webp(*parts: bytes) -> bytes:
    content = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def refused(*parts: bytes) -> bool:
    try:
        survey(webp(*parts), LIMITS)
    except CorruptInputError:
        return True
    return False


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (16383, 16382), (256, 255)])
def test_the_size_of_a_lossy_image_is_read(size: tuple[int, int]) -> None:
    expected = ImageSurvey("WEBP", *size, work=size[0] * size[1])
    assert survey(webp(lossy(*size)), LIMITS) == expected
    scaled = lossy(size[0] | 1 << 14, size[1] | 3 << 14)  # how to show it is kept beside its size
    assert survey(webp(scaled), LIMITS) == expected


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (16384, 16383), (16383, 16384), (256, 257)])
@pytest.mark.parametrize("more", [0, 1, 15])
def test_the_size_of_a_lossless_image_is_read(size: tuple[int, int], more: int) -> None:
    expected = ImageSurvey("WEBP", *size, work=size[0] * size[1])
    assert survey(webp(lossless(*size, more=more)), LIMITS) == expected


@pytest.mark.parametrize(
    "part",
    [
        lossy(7, 5, b"\x9d\x01\x2b"),
        lossless(7, 5, 0x2E),
        lossless(7, 5, 0x30),
        b"VP8\x1f" + lossy(7, 5)[4:],
        b"VP8!" + lossy(7, 5)[4:],
        b"VP8K" + lossless(7, 5)[4:],
        b"VP8M" + lossless(7, 5)[4:],
        b"",
    ],
)
def test_what_is_no_image_is_refused(part: bytes) -> None:
    assert refused(part)


def test_an_image_that_breaks_off_is_refused() -> None:
    for part, enough in ((lossy(7, 5), 18), (lossless(7, 5), 13)):
        assert not refused(part[:enough])
        assert all(refused(part[:length]) for length in range(enough))


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (16383, 2), (300, 7)])
def test_an_image_on_a_canvas_is_laid_there(size: tuple[int, int]) -> None:
    expected = ImageSurvey("WEBP", *size, work=2 * size[0] * size[1])
    for image in (lossy(*size), lossless(*size)):
        assert survey(webp(canvas(image, size=size)), LIMITS) == expected


@pytest.mark.parametrize("size", [(1, 1), (256, 65536), (65537, 255), (1 << 24, 3), (3, (1 << 24) - 1)])
def test_a_canvas_has_sizes_of_three_bytes(size: tuple[int, int]) -> None:
    moving = canvas(frame(0, 0, *size), size=size, flags=ANIMATED)
    assert survey(webp(moving), LIMITS) == ImageSurvey("WEBP", *size, work=2 * size[0] * size[1])


@pytest.mark.parametrize("size", [(6, 5), (8, 5), (7, 4), (7, 6)])
def test_an_image_is_as_large_as_its_canvas(size: tuple[int, int]) -> None:
    assert refused(canvas(lossy(*size)))
    assert refused(canvas(lossless(*size)))
    assert refused(canvas(lossy(7, 5), lossy(*size)))


@pytest.mark.parametrize(
    "place", [(0, 0, 7, 5), (0, 0, 1, 1), (6, 4, 1, 1), (2, 2, 5, 3), (0, 2, 7, 3), (4, 0, 3, 5)]
)
def test_frames_lie_on_the_canvas(place: tuple[int, int, int, int]) -> None:
    assert not refused(canvas(frame(*place), flags=ANIMATED))
    left, top, width, height = place
    if left + width == 7:
        assert refused(canvas(frame(left, top, width + 1, height), flags=ANIMATED))
    if top + height == 5:
        assert refused(canvas(frame(left, top, width, height + 1), flags=ANIMATED))


def test_every_frame_is_looked_at() -> None:
    good = frame(0, 0, 7, 5)
    assert not refused(canvas(good, good, good, flags=ANIMATED))
    assert refused(canvas(good, good, frame(2, 0, 7, 5), flags=ANIMATED))


def test_there_is_an_image_on_the_canvas() -> None:
    assert refused(canvas())
    assert refused(canvas(chunk(b"EXIF", b"text")))
    assert refused(canvas(flags=ANIMATED))
    assert refused(canvas(lossy(7, 5), flags=ANIMATED)), "of an animation, one that is no frame is not shown"
    assert not refused(canvas(frame(0, 0, 7, 5), lossy(9, 9), flags=ANIMATED))


@pytest.mark.parametrize("flags", [0, 0x04, 0x3D, 0xFD])
def test_other_flags_make_no_animation(flags: int) -> None:
    assert not refused(canvas(lossy(7, 5), flags=flags))
    assert refused(canvas(lossy(9, 9), flags=flags))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_other_chunks_are_passed_over_with_their_padding(length: int) -> None:
    other = chunk(b"ICCP", b"x" * length)
    assert not refused(canvas(other, other, lossy(7, 5), other))
    assert refused(canvas(other, other, lossy(9, 9), other))


def test_a_file_that_breaks_off_behind_its_image_is_left_to_its_decoder() -> None:
    data = webp(canvas(lossy(7, 5), chunk(b"EXIF", b"text")))
    begun = len(webp(canvas(lossy(7, 5))))
    for length in range(begun, len(data) + 1):
        assert survey(data[:length], LIMITS).width == 7


def test_ten_thousand_chunks_are_read_and_no_more() -> None:
    """The last look finds the end."""
    assert survey(webp(canvas(lossy(7, 5), chunk(b"EXIF") * 9_998)), LIMITS).width == 7
    with pytest.raises(InputTooLargeError, match="more than 10000 chunks"):
        survey(webp(canvas(lossy(7, 5), chunk(b"EXIF") * 9_999)), LIMITS)
