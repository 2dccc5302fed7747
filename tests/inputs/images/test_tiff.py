"""What is read of a TIFF before it is decoded, at both sides of each bound."""

from __future__ import annotations

import struct

import pytest

from mass_serve.inputs.errors import CorruptInputError, InputTooLargeError
from mass_serve.inputs.images import FORMATS, ImageLimits, ImageSurvey, survey

LIMITS = ImageLimits(max_pixels=100_000_000, formats=FORMATS)
WIDTH, HEIGHT, SAMPLES, ROWS, PLANAR = 256, 257, 277, 278, 284
STRIPS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 279, 322, 323, 324, 325
BYTE, TEXT, SHORT, LONG, RATIONAL, OPAQUE, LONG8 = 1, 2, 3, 4, 5, 7, 16
CODES = {BYTE: "B", SHORT: "H", LONG: "I", LONG8: "Q"}
# A tag: its number, the type of its values, how many there are, and the first.
Tag = tuple[int, int, int, int]


def tag(number: int, value: int, kind: int = LONG, count: int = 1) -> Tag:
    return number, kind, count, value


SIZE = (tag(WIDTH, 7), tag(HEIGHT, 5))


def tiff(*tags: Tag, order: str = "<", big: bool = False, behind: bytes = b"") -> bytes:
    """A file of one directory."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        data = mark + struct.pack(order + "HHHQQ", 43, 8, 0, 24, 0) + struct.pack(order + "Q", len(tags))
    else:
        data = mark + struct.pack(order + "HIxx", 42, 10) + struct.pack(order + "H", len(tags))
    for number, kind, count, value in tags:
        data += struct.pack(order + ("HHQ" if big else "HHI"), number, kind, count)
        data += struct.pack(order + CODES.get(kind, "I"), value).ljust(8 if big else 4, b"\0")
    return data + behind


def work(*tags: Tag) -> int:
    return survey(tiff(*tags), LIMITS).work


def refused(data: bytes) -> bool:
    try:
        survey(data, LIMITS)
    except CorruptInputError:
        return True
    return False


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_the_size_is_read(order: str, big: bool) -> None:
    kinds = [BYTE, SHORT, LONG, *([LONG8] if big else [])]
    for kind in kinds:
        data = tiff(tag(WIDTH, 7, kind), tag(HEIGHT, 5, kind), order=order, big=big)
        assert survey(data, LIMITS) == ImageSurvey("TIFF", 7, 5, work=35)


def test_a_number_of_eight_bytes_does_not_fit_into_four() -> None:
    wide = tiff(*SIZE, tag(ROWS, 5))
    place = wide.index(struct.pack("<HHI", ROWS, LONG, 1))
    assert not refused(wide)
    assert refused(wide[: place + 2] + struct.pack("<H", LONG8) + wide[place + 4 :] + bytes(8))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_directory_beyond_all_files_is_refused(order: str) -> None:
    """An offset of 8 bytes may be more than a file can have bytes at all."""
    magic = {"<": b"II+\0", ">": b"MM\0+"}[order]
    assert refused(magic + struct.pack(order + "HHQ", 8, 0, 2**63) + bytes(64))


@pytest.mark.parametrize("kind", [0, TEXT, RATIONAL, 6, OPAQUE, 11, 17])
def test_sizes_are_whole_numbers(kind: int) -> None:
    assert refused(tiff(tag(WIDTH, 7, kind), tag(HEIGHT, 5)))


@pytest.mark.parametrize(
    "tags", [(), SIZE[:1], SIZE[1:], (tag(WIDTH, 0), SIZE[1]), (SIZE[0], tag(HEIGHT, 0))]
)
def test_there_is_no_image_without_a_size(tags: tuple[Tag, ...]) -> None:
    assert refused(tiff(*tags))


@pytest.mark.parametrize(
    "number", [WIDTH, HEIGHT, SAMPLES, ROWS, PLANAR, STRIPS, STRIP_BYTES, TILES, TILE_BYTES]
)
def test_a_tag_that_is_there_twice_is_refused(number: int) -> None:
    """Decoders do not agree on which of the two counts."""
    once = [one for one in SIZE if one[0] != number] + [tag(number, 1)]
    if number in (TILES, TILE_BYTES):
        once += [tag(TILE_WIDTH, 16), tag(TILE_HEIGHT, 16)]
    assert not refused(tiff(*once))
    assert refused(tiff(*once, tag(number, 1)))


@pytest.mark.parametrize("number", [TILE_WIDTH, TILE_HEIGHT])
def test_a_size_of_tiles_that_is_there_twice_is_refused(number: int) -> None:
    tiled = (*SIZE, tag(TILE_WIDTH, 16), tag(TILE_HEIGHT, 16), tag(TILES, 0))
    assert not refused(tiff(*tiled))
    assert refused(tiff(*tiled, tag(number, 16)))


def test_other_tags_are_passed_over() -> None:
    other = [
        tag(n, 0, kind) for n, kind in ((254, LONG), (305, TEXT), (700, OPAQUE), (282, RATIONAL), (305, TEXT))
    ]
    assert work(*other[:2], *SIZE, *other[2:]) == 35


def test_a_directory_that_breaks_off_is_refused() -> None:
    whole = tiff(*SIZE)
    assert all(refused(whole[:length]) for length in range(4, len(whole)))


def test_only_the_first_directory_is_read() -> None:
    assert survey(tiff(*SIZE, behind=bytes(1000)), LIMITS).work == 35


def test_a_thousand_tags_are_read_and_no_more() -> None:
    assert work(*SIZE, *[tag(305, 0, TEXT)] * 998) == 35
    with pytest.raises(InputTooLargeError, match="more than 1000 tags"):
        work(*SIZE, *[tag(305, 0, TEXT)] * 999)


def test_a_tag_has_as_many_values_as_a_palette_of_sixteen_bits_and_few_more() -> None:
    assert work(*SIZE, tag(320, 0, SHORT, count=3 << 16)) == 35
    assert work(*SIZE, tag(320, 0, SHORT, count=200_000)) == 35
    with pytest.raises(InputTooLargeError, match="more than 200000 values"):
        work(*SIZE, tag(320, 0, SHORT, count=200_001))


@pytest.mark.parametrize("kind", range(20))
def test_only_bytes_and_text_may_be_longer(kind: int) -> None:
    data = tiff(*SIZE, tag(34675, 0, kind, count=200_001))
    if kind in (BYTE, TEXT, OPAQUE):
        assert survey(data, LIMITS).work == 35
    else:
        with pytest.raises(InputTooLargeError):
            survey(data, LIMITS)


@pytest.mark.parametrize("number", [STRIPS, STRIP_BYTES])
def test_ten_thousand_strips_are_read_and_no_more(number: int) -> None:
    assert work(*SIZE, tag(number, 8, count=10_000)) == 35
    with pytest.raises(InputTooLargeError, match="more than 10000 strips or tiles"):
        work(*SIZE, tag(number, 8, count=10_001))


@pytest.mark.parametrize("number", [TILES, TILE_BYTES])
def test_ten_thousand_tiles_are_read_and_no_more(number: int) -> None:
    tiles = (tag(TILE_WIDTH, 16), tag(TILE_HEIGHT, 16))
    others = [tag(other, 8) for other in (TILES,) if other != number]
    assert work(*SIZE, *tiles, *others, tag(number, 8, count=10_000)) == 16 * 16
    with pytest.raises(InputTooLargeError, match="more than 10000 strips or tiles"):
        work(*SIZE, *tiles, *others, tag(number, 8, count=10_001))


def test_a_file_cannot_hide_its_strips_by_naming_few() -> None:
    def striped(height: int, rows: int) -> int:
        return work(tag(WIDTH, 1), tag(HEIGHT, height), tag(ROWS, rows), tag(STRIPS, 8))

    assert striped(10_000, 1) == 10_000
    assert striped(20_000, 2) == 20_000
    for height, rows in ((10_001, 1), (20_001, 2)):
        with pytest.raises(InputTooLargeError, match="more than 10000 strips"):
            striped(height, rows)


@pytest.mark.parametrize("rows", [0, 20_000, 20_001, 0xFFFFFFFF])
def test_no_rows_or_more_than_there_are_mean_one_strip(rows: int) -> None:
    assert work(tag(WIDTH, 1), tag(HEIGHT, 20_000), tag(ROWS, rows)) == 20_000


def test_without_rows_there_is_one_strip() -> None:
    assert work(tag(WIDTH, 1), tag(HEIGHT, 20_000)) == 20_000


def test_sixteen_planes_are_read_and_no_more() -> None:
    def planes(samples: int, planar: int) -> int:
        return work(*SIZE, tag(SAMPLES, samples), tag(PLANAR, planar))

    assert planes(16, 2) == planes(60, 1) == planes(60, 3) == 35
    assert work(*SIZE, tag(SAMPLES, 60)) == work(*SIZE, tag(PLANAR, 2)) == 35
    with pytest.raises(InputTooLargeError, match="more than 16 planes"):
        planes(17, 2)


def tiled(size: tuple[int, int], tile: tuple[int, int]) -> int:
    return work(
        tag(WIDTH, size[0]),
        tag(HEIGHT, size[1]),
        tag(TILE_WIDTH, tile[0]),
        tag(TILE_HEIGHT, tile[1]),
        tag(TILES, 8),
    )


@pytest.mark.parametrize(
    ("size", "tile", "pixels"),
    [
        ((32, 32), (16, 16), 1024),
        ((33, 32), (16, 16), 1024 + 512),
        ((32, 33), (16, 16), 1024 + 512),
        ((1, 1), (16, 32), 512),
        ((40, 10), (16, 32), 3 * 512),
    ],
)
def test_tiles_count_with_what_juts_out(size: tuple[int, int], tile: tuple[int, int], pixels: int) -> None:
    assert tiled(size, tile) == pixels


@pytest.mark.parametrize("tile", [(0, 16), (16, 0)])
def test_tiles_have_a_size(tile: tuple[int, int]) -> None:
    with pytest.raises(CorruptInputError):
        tiled((32, 32), tile)


@pytest.mark.parametrize("missing", [TILE_WIDTH, TILE_HEIGHT])
def test_tiles_say_their_size(missing: int) -> None:
    assert refused(
        tiff(*SIZE, *[tag(n, 16) for n in (TILE_WIDTH, TILE_HEIGHT) if n != missing], tag(TILES, 8))
    )


def test_a_file_cannot_hide_its_tiles_by_naming_few() -> None:
    assert tiled((10_000, 1), (1, 1)) == 10_000
    assert tiled((100, 100), (1, 1)) == 10_000
    for size in ((10_001, 1), (1, 10_001), (101, 100)):
        with pytest.raises(InputTooLargeError, match="more than 10000 tiles"):
            tiled(size, (1, 1))


def test_a_tile_may_be_of_a_usual_size_or_four_times_the_image() -> None:
    assert tiled((1, 1), (1024, 1024)) == 1 << 20
    assert tiled((1, 1), (1, (1 << 20) + 4)) == (1 << 20) + 4
    assert tiled((1000, 1000), (1, (1 << 20) // 1000 + 4000)) == 1000 * (1048 + 4000)
    for size, tile in (
        ((1, 1), (1, (1 << 20) + 5)),
        ((1000, 1000), (1, 1049 + 4000)),
        ((16, 16), (40_000, 40_000)),
    ):
        with pytest.raises(InputTooLargeError, match="its tiles"):
            tiled(size, tile)


def test_an_image_beyond_the_pixels_is_told_so_whatever_its_parts_are() -> None:
    data = tiff(tag(WIDTH, 10_001), tag(HEIGHT, 10_000), tag(ROWS, 1), tag(STRIPS, 8, count=100_000))
    with pytest.raises(InputTooLargeError, match="10001 x 10000 pixels"):
        survey(data, LIMITS)
    exactly = tiff(tag(WIDTH, 10_000), tag(HEIGHT, 10_000), tag(TILE_WIDTH, 0), tag(TILES, 8))
    assert refused(exactly)
