"""What is decoded must be what was declared, and want of memory is not the caller's fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mass_serve.inputs.errors import CorruptInputError
from mass_serve.inputs.images import FORMATS, ImageLimits, ImageSurvey, decode_surveyed, survey
from tests.pictures import encode

LIMITS = ImageLimits(max_pixels=1000, formats=FORMATS)
TOO_LARGE = 1 << 24  # each way: no machine has the memory


def image(image_format: str) -> tuple[bytes, ImageSurvey]:
    """Black on the left and white on the right, 7 pixels wide and 5 high."""
    pixels = np.zeros((5, 7, 3), np.uint8)
    pixels[:, 4:] = 255
    data = encode(Image.fromarray(pixels), image_format)
    return data, survey(data, LIMITS)


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_size_that_was_declared_is_decoded(image_format: str) -> None:
    assert decode_surveyed(*image(image_format)).image.size == (7, 5)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("size", [(7, 4), (8, 5), (5, 8)])
def test_another_size_than_was_declared_is_refused(image_format: str, size: tuple[int, int]) -> None:
    data, found = image(image_format)
    with pytest.raises(CorruptInputError, match=f"The {image_format} image is truncated or corrupt"):
        decode_surveyed(data, replace(found, width=size[0], height=size[1]))


@pytest.mark.parametrize("image_format", FORMATS)
def test_only_of_a_tiff_both_sides_may_be_exchanged(image_format: str) -> None:
    """Pillow turns one with an orientation while it reads it."""
    data, found = image(image_format)
    turned = replace(found, width=5, height=7)
    if image_format == "TIFF":
        assert decode_surveyed(data, turned).image.size == (7, 5)
    else:
        with pytest.raises(CorruptInputError):
            decode_surveyed(data, turned)


def test_no_other_format_than_was_surveyed_is_tried() -> None:
    data, found = image("PNG")
    with pytest.raises(CorruptInputError):
        decode_surveyed(data, replace(found, format="GIF"))


def test_a_file_that_fails_where_its_memory_is_not_there_is_not_called_corrupt() -> None:
    """Decoders say the same of both."""
    data, found = image("PNG")
    broken = data[: len(data) // 2]
    with pytest.raises(CorruptInputError):
        decode_surveyed(broken, found)
    with pytest.raises(MemoryError):
        decode_surveyed(broken, replace(found, width=TOO_LARGE, height=TOO_LARGE))


def fails_with(error: type[Exception]) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_want_of_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    data, found = image("PNG")
    monkeypatch.setattr(Image, "open", fails_with(MemoryError))
    with pytest.raises(MemoryError):
        decode_surveyed(data, found)


def turned(orientation: int) -> tuple[bytes, ImageSurvey]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.new("RGB", (7, 5), "red"), "PNG", exif=exif)
    return data, survey(data, LIMITS)


def test_an_image_is_turned_where_its_orientation_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_surveyed(*turned(6)).image.size == (5, 7)
    with monkeypatch.context() as short:
        short.setattr(Image.Image, "transpose", fails_with(MemoryError))
        with pytest.raises(MemoryError):
            decode_surveyed(*turned(6))
    monkeypatch.setattr(Image.Image, "getexif", fails_with(ValueError))
    assert decode_surveyed(*turned(6)).image.size == (7, 5), "broken data about it leave the image as it lies"


def test_an_upright_image_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "transpose", fails_with(AssertionError))
    for data, found in (turned(1), image("PNG")):
        assert decode_surveyed(data, found).image.size == (7, 5)
