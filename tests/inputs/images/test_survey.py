"""Which files are read at all, told by their first bytes, and the bound on their pixels from both sides."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from PIL import Image

from mass_serve.inputs.errors import (
    CorruptInputError,
    EmptyInputError,
    InputTooLargeError,
    UnknownFormatError,
)
from mass_serve.inputs.images import DEFAULT_FORMATS, FORMATS, ImageLimits, survey
from mass_serve.inputs.images.survey import format_of
from tests.pictures import encode

LIMITS = ImageLimits(max_pixels=35, formats=FORMATS)


@pytest.fixture(params=FORMATS)
def image_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def image(image_format: str, width: int = 7, height: int = 5) -> bytes:
    return encode(Image.new("RGB", (width, height), "red"), image_format)


def test_what_a_file_is_says_the_file(image_format: str) -> None:
    found = survey(image(image_format), LIMITS)
    assert (found.format, found.width, found.height) == (image_format, 7, 5)
    assert found.work >= 35


def test_as_many_pixels_as_may_be_and_no_more(image_format: str) -> None:
    assert survey(image(image_format, 35, 1), LIMITS).width == 35
    with pytest.raises(InputTooLargeError, match="12 x 3 pixels, the limit is 35 in all"):
        survey(image(image_format, 12, 3), LIMITS)


def test_a_format_that_is_not_named_is_refused_with_the_setting(image_format: str) -> None:
    others = tuple(other for other in FORMATS if other != image_format)
    with pytest.raises(
        UnknownFormatError, match=rf"^{image_format} images .*image_formats name {image_format}\.$"
    ):
        survey(image(image_format), ImageLimits(1000, others))
    assert survey(image(image_format), ImageLimits(1000, (image_format,))).width == 7


def test_the_formats_that_are_read_are_told() -> None:
    for formats, words in (
        (("PNG", "JPEG", "GIF"), "send a PNG, JPEG or GIF file"),
        (("PNG", "JPEG"), "send a PNG or JPEG file"),
        (("PNG",), "send a PNG file"),
    ):
        with pytest.raises(UnknownFormatError, match=words):
            survey(b"text", ImageLimits(1000, formats))
        with pytest.raises(UnknownFormatError, match=words):
            survey(image("BMP"), ImageLimits(1000, formats))


def test_tiff_is_read_where_a_setting_names_it() -> None:
    assert DEFAULT_FORMATS == ("PNG", "JPEG", "WEBP", "GIF", "BMP")
    with pytest.raises(UnknownFormatError, match="TIFF images are not read here"):
        survey(image("TIFF"), ImageLimits(1000))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"\xff\xd8\xff", "JPEG"),
        (b"\xff\xd8\xfe", ""),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\x89PNG\n\x1a\n", ""),
        (b"RIFF\0\0\0\0WEBP", "WEBP"),
        (b"RIFF\0\0\0\0WAVE", ""),
        (b"RIFF\0\0\0\0WXYZ", ""),
        (b"RIFX\0\0\0\0WEBP", ""),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"GIF88a", ""),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"II\0*", ""),
        (b"text", ""),
        (b"", ""),
    ],
)
def test_formats_are_told_apart_by_their_first_bytes(start: bytes, expected: str) -> None:
    assert format_of(start) == expected
    assert format_of(start + b"RIFF") == expected
    assert format_of(b" " + start) == ""


def test_nothing_is_no_image() -> None:
    with pytest.raises(EmptyInputError):
        survey(b"", LIMITS)


def test_a_file_that_ends_in_its_header_is_corrupt(image_format: str) -> None:
    with pytest.raises(CorruptInputError, match=f"The {image_format} image's header"):
        survey(image(image_format)[:14], LIMITS)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (7, 0), (0, 0)])
def test_an_image_has_pixels(width: int, height: int) -> None:
    data = image("PNG")
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    with pytest.raises(CorruptInputError):
        survey(data[:16] + header + data[24:], LIMITS)


def test_what_was_found_stays_so() -> None:
    found = survey(image("PNG"), LIMITS)
    with pytest.raises(FrozenInstanceError):
        found.width = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        LIMITS.max_pixels = 1  # type: ignore[misc]
