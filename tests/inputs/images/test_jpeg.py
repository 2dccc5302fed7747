"""What is read of a JPEG before it is decoded, at both sides of each bound."""

from __future__ import annotations

import struct

import pytest

from mass_serve.inputs.errors import CorruptInputError, InputTooLargeError
from mass_serve.inputs.images import ImageLimits, ImageSurvey, survey

LIMITS = ImageLimits(max_pixels=1000)
START, END = b"\xff\xd8", b"\xff\xd9"
BASELINE, PROGRESSIVE = 0xC0, 0xC2
# How far a reader looks before other threads have their turn.
PIECE = 1 << 20


def segment(marker: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def frame(marker: int = BASELINE, width: int = 7, height: int = 5, components: int = 3) -> bytes:
    return segment(marker, struct.pack(">BHHB", 8, height, width, components))


def scan(components: int = 3, data: bytes = b"\x12\xff\x00\x34") -> bytes:
    return segment(0xDA, bytes([components])) + data


def jpeg(*parts: bytes) -> bytes:
    return START + b"".join(parts) + END


def refused(*parts: bytes) -> bool:
    try:
        survey(jpeg(*parts), LIMITS)
    except CorruptInputError:
        return True
    return False


def test_the_size_is_read() -> None:
    assert survey(jpeg(frame(), scan()), LIMITS) == ImageSurvey("JPEG", 7, 5, work=35)


def test_other_segments_are_passed_over() -> None:
    parts = (segment(0xE0, b"JFIF" + scan()), segment(0xDB), frame(), segment(0xC4, b"\xff" * 40), scan())
    assert survey(jpeg(*parts), LIMITS) == ImageSurvey("JPEG", 7, 5, work=35)


def test_which_markers_begin_a_frame() -> None:
    taken = [marker for marker in range(0xC0, 0xD0) if not refused(frame(marker), scan())]
    assert taken == [marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)]
    assert refused(frame(0xBF), scan())
    assert refused(frame(0xFE), scan())


@pytest.mark.parametrize(
    "marker", [*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), 0xCD, 0xCE, 0xCF]
)
def test_scans_of_progressive_frames_are_counted(marker: int) -> None:
    """Each goes over the whole image, which takes about a quarter of making its pixels."""
    progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
    data = jpeg(frame(marker), scan(), scan(), scan())
    assert survey(data, LIMITS).work == (35 + 35 * 3 // 4 if progressive else 35)


def test_a_progressive_frame_of_one_scan_costs_no_more() -> None:
    assert survey(jpeg(frame(PROGRESSIVE), scan()), LIMITS).work == 35


def test_scans_of_single_components_are_counted_in_every_frame() -> None:
    data = jpeg(frame(BASELINE), scan(1), scan(1), scan(1))
    assert survey(data, LIMITS).work == 35 + 35 * 3 // 4
    assert survey(jpeg(frame(BASELINE, components=1), scan(1), scan(1)), LIMITS).work == 35


def test_a_scan_of_more_components_than_there_are_is_left_to_its_decoder() -> None:
    assert survey(jpeg(frame(), scan(4), scan(4)), LIMITS).work == 35


def test_a_hundred_scans_are_read_and_no_more() -> None:
    assert survey(jpeg(frame(PROGRESSIVE), *[scan()] * 100), LIMITS).work == 35 + 35 * 100 // 4
    with pytest.raises(InputTooLargeError, match="more than 100 scans"):
        survey(jpeg(frame(PROGRESSIVE), *[scan()] * 101), LIMITS)


def test_the_largest_image_may_have_twenty_scans() -> None:
    def large(pixels: int, scans: int) -> bytes:
        return jpeg(frame(PROGRESSIVE, width=pixels, height=1), *[scan()] * scans)

    assert survey(large(1000, 20), LIMITS).work == 1000 + 1000 * 20 // 4
    assert survey(large(200, 100), LIMITS).work == 200 + 200 * 100 // 4
    for pixels, scans in ((1000, 21), (201, 100)):
        with pytest.raises(InputTooLargeError, match=rf"{pixels} x 1 pixels in {scans} scans"):
            survey(large(pixels, scans), LIMITS)
    with pytest.raises(InputTooLargeError, match="limit is 1000 in all"):
        survey(jpeg(frame(width=30_000), scan()), LIMITS)


@pytest.mark.parametrize("place", [-3, -2, -1, 0, 1, 2])
def test_a_scan_is_counted_once_wherever_a_long_file_is_divided(place: int) -> None:
    first = segment(0xDA, b"\3")
    data = first + bytes(PIECE + place - len(first)) + scan()
    assert survey(jpeg(frame(PROGRESSIVE), data), LIMITS).work == 35 + 35 * 2 // 4
    again = data + bytes(2 * PIECE - len(data)) + scan() + bytes(PIECE)
    assert survey(jpeg(frame(PROGRESSIVE), again), LIMITS).work == 35 + 35 * 3 // 4


def test_what_stands_before_the_first_scan_is_none() -> None:
    data = jpeg(frame(PROGRESSIVE), segment(0xE1, b"\xff\xda" * 200), scan())
    assert survey(data, LIMITS).work == 35


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (frame(),),
        (scan(),),
        (scan(), frame()),
        (frame(components=0), scan()),
        (frame(), frame(), scan()),  # decoders might take either
        (frame(), END, scan()),
    ],
    ids=["nothing", "no scan", "no frame", "frame late", "no components", "two frames", "end"],
)
def test_a_frame_and_its_scans_must_be_there(parts: tuple[bytes, ...]) -> None:
    assert refused(*parts)


def test_a_frame_that_breaks_off_is_refused() -> None:
    whole = START + frame() + scan(data=b"")
    for length in range(3, len(whole) - 1):
        with pytest.raises(CorruptInputError):
            survey(whole[:length], LIMITS)


FILLING = [
    b"\xff",
    b"\xff" * 9,
    b"\0",
    b"junk",
    b"\xff\0",
    b"\xff\x01",
    b"\xff\xd0\xff\xd7\xff\xd8",
    b"\xd9",
    b"x\xff",
]


@pytest.mark.parametrize("filling", FILLING)
def test_what_decoders_pass_over_between_segments_is_passed_over(filling: bytes) -> None:
    data = jpeg(segment(0xFE), filling, frame(PROGRESSIVE), filling, scan(), scan())
    assert survey(data, LIMITS) == ImageSurvey("JPEG", 7, 5, work=35 + 35 * 2 // 4)


def refused_as_too_many(*parts: bytes) -> bool:
    try:
        survey(jpeg(*parts), LIMITS)
    except InputTooLargeError as error:
        return "more than 10000 markers" in str(error)
    return False


@pytest.mark.parametrize(
    "marker", [segment(0xFE), b"\xff\xd0", b"\xff\0", b"\xff\x01", b"\xff\0junk", b"\xff\x01x"]
)
def test_ten_thousand_markers_are_read_and_no_more(marker: bytes) -> None:
    """The frame and the scan are two of them."""
    assert not refused_as_too_many(frame(), marker * 9_998, scan())
    assert refused_as_too_many(frame(), marker * 9_999, scan())
    assert not refused_as_too_many(marker * 9_998, frame(), scan())
    assert refused_as_too_many(marker * 9_999, frame(), scan())


@pytest.mark.parametrize("filling", [b"\xff", b"\xff" * 90, b"\xff\xff"])
def test_filling_counts_once_before_each_segment(filling: bytes) -> None:
    filled = filling + segment(0xFE)
    assert survey(jpeg(filled * 4_999, frame(), scan()), LIMITS).work == 35
    assert refused_as_too_many(filled * 5_000, frame(), scan())


def test_what_is_passed_over_and_what_is_read_have_one_bound() -> None:
    """Else as many could be passed over before each segment as there may be segments."""
    assert refused_as_too_many((b"\xff\x01" * 5_000 + segment(0xFE)) * 2, frame(), scan())


@pytest.mark.parametrize("length", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7])
def test_filling_of_any_length_is_passed_over_to_the_marker_behind_it(length: int) -> None:
    assert survey(jpeg(b"\xff" * length, frame(), b"\xff" * length, scan()), LIMITS).work == 35


@pytest.mark.parametrize("end", [b"", b"\xff", b"\xff\xff", b"\xff" * (PIECE + 1)])
def test_a_file_that_ends_in_filling_is_refused(end: bytes) -> None:
    with pytest.raises(CorruptInputError):
        survey(START + segment(0xFE) + end, LIMITS)
