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
