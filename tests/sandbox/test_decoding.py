"""What a worker process is told of an image, and what it makes of it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mass_serve.inputs.images import ImageSurvey
from mass_serve.inputs.preprocessing import INTERPOLATIONS, Resizing
from mass_serve.sandbox.decoding import DecodeOptions, decode


@pytest.mark.parametrize("half_even", [False, True])
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(30, 70), (70, 30), (1, 400)])
def test_an_image_is_resized_as_it_is_without_a_worker(
    shape: tuple[int, int], interpolation: str, square: bool, half_even: bool
) -> None:
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8))
    stream = BytesIO()
    image.save(stream, "PNG")
    resizing = Resizing(24, 20, interpolation, square, half_even)
    surveyed = ImageSurvey("PNG", image.width, image.height, work=0)
    asked = DecodeOptions(surveyed, resizing)
    assert DecodeOptions.unpacked(asked.packed()) == asked
    pixels = np.frombuffer(decode(memoryview(stream.getvalue()), asked.packed()), np.uint8).reshape(3, 20, 20)
    assert np.array_equal(pixels, resizing.pixels(image))
    if square:
        whole = image.resize((24, 24), INTERPOLATIONS[interpolation]).crop((2, 2, 22, 22))
        assert np.array_equal(pixels, np.asarray(whole).transpose(2, 0, 1))


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(95, 200), (96, 200), (205, 387), (1000, 391), (200, 4000)])
def test_a_scaled_jpeg_is_nearly_the_exact_one(
    shape: tuple[int, int], orientation: int, square: bool
) -> None:
    """The pixels are the same where it is too small to be scaled, and differ a little where it is not."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    image = coarse.resize(shape, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = BytesIO()
    image.save(stream, "JPEG", quality=95, exif=exif)
    surveyed = ImageSurvey("JPEG", image.width, image.height, work=0)
    exact, scaled = (
        np.frombuffer(
            decode(memoryview(stream.getvalue()), DecodeOptions(surveyed, resizing).packed()), np.uint8
        ).astype(int)
        for resizing in (Resizing(24, 20, "bicubic", square, scaled=part) for part in (False, True))
    )
    assert np.array_equal(exact, scaled) == (min(shape) < 96 or max(shape) > 16 * min(shape))
    assert np.abs(exact - scaled).max() <= 16


def test_the_first_of_several_pictures_in_a_jpeg_is_scaled_as_one_alone() -> None:
    """Cameras write such files, and add a preview or a depth map."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
    image, other = coarse.resize((401, 301), Image.Resampling.BICUBIC), Image.new("RGB", (40, 30))
    surveyed = ImageSurvey("JPEG", image.width, image.height, work=0)
    resizing = Resizing(24, 20, "bicubic", scaled=True)
    files = BytesIO(), BytesIO()
    image.save(files[0], "JPEG", quality=95)
    image.save(files[1], "MPO", quality=95, save_all=True, append_images=[other])
    alone, first = (
        np.frombuffer(
            decode(memoryview(file.getvalue()), DecodeOptions(surveyed, resizing).packed()), np.uint8
        )
        for file in files
    )
    assert np.array_equal(alone, first)
    assert not np.array_equal(first, resizing.pixels(image).ravel())


def test_other_formats_are_decoded_whole() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    stream = BytesIO()
    image.save(stream, "PNG")
    asked = DecodeOptions(ImageSurvey("PNG", 200, 200, work=0), Resizing(24, 20, "bicubic", scaled=True))
    assert DecodeOptions.unpacked(asked.packed()) == asked
    pixels = np.frombuffer(decode(memoryview(stream.getvalue()), asked.packed()), np.uint8)
    assert np.array_equal(pixels.reshape(3, 20, 20), asked.resizing.pixels(image))
