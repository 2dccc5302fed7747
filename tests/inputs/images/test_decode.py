"""Every kind of image file comes out as a person would see it, or is refused with the right status."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mass_serve.inputs.errors import (
    CorruptInputError,
    EmptyInputError,
    InputError,
    InputTooLargeError,
    UnknownFormatError,
)
from mass_serve.inputs.images import FORMATS, ImageLimits, decode_image
from mass_serve.server.errors import (
    input_refused,
)
from tests.pictures import bomb, corner, encode, picture

LIMIT = 1_000_000
LIMITS = ImageLimits(LIMIT, FORMATS)


def decode(data: bytes) -> Image.Image:
    image = decode_image(data, LIMITS)
    assert image.mode == "RGB"
    return image


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_enabled_format_is_read(image_format: str) -> None:
    image = decode(encode(Image.new("RGB", (20, 10), (200, 30, 90)), image_format))
    assert image.size == (20, 10)
    assert np.abs(np.subtract(corner(image), (200, 30, 90))).max() < 12  # lossy formats


def test_sixteen_bit_values_are_scaled_not_clipped_to_white() -> None:
    values = np.array([[0, 0x4000, 0x8000, 0xFFFF]], dtype=np.uint16)
    image = decode(encode(Image.fromarray(values)))
    assert [image.getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in (0, 0x40, 0x80, 0xFF)]


@pytest.mark.parametrize(("image_format", "order"), [("PNG", "<"), ("TIFF", "<"), ("TIFF", ">")])
def test_sixteen_bit_of_both_byte_orders(image_format: str, order: str) -> None:
    values = np.full((4, 4), 0x8001, dtype=f"{order}u2")
    assert corner(decode(encode(Image.fromarray(values), image_format))) == (128, 128, 128)


def test_float_images_are_stretched() -> None:
    values = np.linspace(-3.0, 5.0, 3, dtype=np.float32).reshape(1, 3)
    image = decode(encode(Image.fromarray(values), "TIFF"))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(v, v, v) for v in (0, 128, 255)]


def test_cmyk() -> None:
    assert corner(decode(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"))) == (255, 0, 0)


def test_adobe_cmyk_jpeg_is_not_inverted() -> None:
    red, green, blue = corner(decode(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)))
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))],
)
def test_transparent_is_white_whatever_hides_under_it(mode: str, colour: tuple[int, ...]) -> None:
    assert corner(decode(encode(Image.new(mode, (8, 8), colour)))) == (255, 255, 255)


def test_half_transparent_red_on_white_is_pink() -> None:
    assert corner(decode(encode(Image.new("RGBA", (8, 8), (255, 0, 0, 128))))) == (255, 127, 127)


def test_palette_with_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    decoded = decode(encode(image, transparency=0))
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (200, 100, 50)]


def test_palette_with_transparency_in_bytes_makes_no_warning() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert corner(decode(encode(image, transparency=bytes([0, 128])))) == (255, 255, 255)


def test_colour_key_transparency_of_rgb() -> None:
    assert corner(decode(encode(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)))) == (
        255,
        255,
        255,
    )


def test_one_bit() -> None:
    assert corner(decode(encode(Image.new("1", (8, 8), 1)))) == (255, 255, 255)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(image_format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    assert corner(decode(data)) == (255, 0, 0)


def two_colours() -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (32, 16), "red")
    image.paste((0, 0, 255), (16, 0, 32, 16))
    return image


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "size", "top_left"),
    [(1, (32, 16), "red"), (3, (32, 16), "blue"), (6, (16, 32), "red"), (8, (16, 32), "blue")],
)
def test_exif_rotation(image_format: str, orientation: int, size: tuple[int, int], top_left: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encode(two_colours(), image_format, exif=exif))
    assert image.size == size
    red, _, blue = corner(image)
    assert (red > blue) == (top_left == "red")


def test_rotation_of_a_sixteen_bit_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.full((4, 8), 0x8000, dtype=np.uint16)
    assert decode(encode(Image.fromarray(values), exif=exif)).size == (4, 8)


def test_broken_exif_leaves_the_image_as_it_lies() -> None:
    assert decode(encode(two_colours(), "JPEG", exif=b"Exif\0\0nonsense")).size == (32, 16)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    data = bomb()
    assert len(data) < 200_000
    with pytest.raises(InputTooLargeError, match=r"30000 x 30000|1000000"):
        decode_image(data, LIMITS)


@pytest.mark.parametrize("side", [1001, 10_000, 12_000])
def test_the_pixel_limit_counts_and_pillows_own_does_not_show(side: int) -> None:
    with pytest.raises(InputTooLargeError, match=str(LIMIT)):
        decode_image(bomb(side, 1000 if side == 1001 else side), LIMITS)


def test_exactly_the_limit_is_accepted() -> None:
    assert decode_image(bomb(1000, 1000), LIMITS).size == (1000, 1000)


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"\0" * 1000,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
        b"%PDF-1.4",
        b"PK\x03\x04",
    ],
)
def test_not_an_image(data: bytes) -> None:
    with pytest.raises(UnknownFormatError, match="PNG"):
        decode(data)


def test_empty() -> None:
    with pytest.raises(EmptyInputError, match="empty"):
        decode(b"")


@pytest.mark.parametrize("image_format", FORMATS)
def test_truncated(image_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), image_format)
    with pytest.raises((CorruptInputError, UnknownFormatError)):
        decode(data[: len(data) // 2])


def test_a_corrupt_header_is_the_callers_fault() -> None:
    data = bytearray(picture(1))
    struct.pack_into(">I", data, 16, 0)  # a width of nothing
    with pytest.raises(InputError) as caught:
        decode(bytes(data))
    assert input_refused(caught.value).status in (400, 415)


SEEDS = [encode(two_colours(), image_format) for image_format in FORMATS]


@settings(max_examples=150)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
)
def test_damaged_files_decode_or_are_refused(seed: bytes, edits: list[tuple[int, int]]) -> None:
    data = bytearray(seed)
    for position, value in edits:
        data[position % len(data)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decoded = decode_image(bytes(data), LIMITS)
        except InputError as error:
            refusal = input_refused(error).status
        else:
            assert decoded.mode == "RGB"
            return
    assert refusal in (400, 413, 415)


def test_pillow_can_read_more_than_is_enabled() -> None:
    """The list of formats is what keeps the others out."""
    data = encode(Image.new("RGB", (8, 8)), "PPM")
    assert Image.open(BytesIO(data)).format == "PPM"
    with pytest.raises(UnknownFormatError):
        decode(data)
