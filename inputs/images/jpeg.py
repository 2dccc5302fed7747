"""What a JPEG declares: its frame, and in how many scans it comes."""

from __future__ import annotations

import struct

from mass_serve.inputs.errors import InputTooLargeError
from mass_serve.inputs.images.surveyed import MOST_PARTS, ImageSurvey, corrupt, too_many

FRAME = struct.Struct(">BHHB")  # bits, height, width, components
SEGMENT = struct.Struct(">BBH")  # 0xff, marker, length with itself
# Start-of-frame markers: those of C4, C8 and CC mean something else.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
START_OF_SCAN, END = 0xDA, 0xD9
# Markers without a length behind them.
BARE = frozenset(range(0xD0, 0xD9)) | {0x01}

# Encoders make about ten; each goes over all coefficients of the image, also where it has nothing to say.
MOST_SCANS = 100
MOST_SCANS_OF_THE_LARGEST = 20
# A scan refines coefficients, which takes about a quarter of what it takes to make pixels of them.
SCANS_PER_PIXEL = 4
PIECE = 1 << 20  # bytes to look through before other threads have their turn


def survey_jpeg(data: bytes, max_pixels: int) -> ImageSurvey:
    """Reads the segments up to the first scan, and counts the scans of a file that may have many."""
    width = height = components = 0
    progressive = False
    position = 2
    for _ in range(MOST_PARTS):
        position, marker, length = _next_segment(data, position)
        if marker == END:
            break
        if marker == START_OF_SCAN:
            if not components:
                break
            many = progressive or data[position + 4] < components
            scans = _count_scans(data, position) if many else 1
            return _with_scans(width, height, scans, max_pixels)
        if marker in FRAMES:
            if components:  # another frame behind the first could be the one that is decoded
                break
            _, height, width, components = FRAME.unpack_from(data, position + 4)
            progressive = marker in PROGRESSIVE
        position += 2 + length
    else:
        raise too_many("segments", MOST_PARTS)
    raise corrupt("JPEG")


def _next_segment(data: bytes, position: int) -> tuple[int, int, int]:
    """Returns where the next segment begins, its marker and its length, over what decoders pass over."""
    first, marker, length = SEGMENT.unpack_from(data, position)
    if first == 0xFF and marker not in BARE and marker not in (0xFF, 0x00):
        return position, marker, length
    for _ in range(MOST_PARTS):
        position = data.find(b"\xff", position)
        if position < 0:
            raise corrupt("JPEG")
        marker = data[position + 1]
        if marker == END:
            return position, marker, 0
        if marker == 0xFF:
            position += 1
        elif marker in BARE or marker == 0:
            position += 2
        else:
            _, marker, length = SEGMENT.unpack_from(data, position)
            return position, marker, length
    raise too_many("markers", MOST_PARTS)


def _count_scans(data: bytes, first: int) -> int:
    """Counts the scans from the first on; within their data 0xff has no marker behind it."""
    found = 0
    for start in range(first, len(data), PIECE):
        found += data.count(b"\xff\xda", start, start + PIECE + 1)
        if found > MOST_SCANS:
            raise too_many("scans", MOST_SCANS)
    return max(1, found)


def _with_scans(width: int, height: int, scans: int, max_pixels: int) -> ImageSurvey:
    pixels = width * height
    if scans > 1 and pixels * scans > max_pixels * MOST_SCANS_OF_THE_LARGEST:
        raise InputTooLargeError(
            f"The image has {width} x {height} pixels in {scans} scans; send it with fewer, or a smaller one."
        )
    return ImageSurvey(
        "JPEG", width, height, pixels + (pixels * scans // SCANS_PER_PIXEL if scans > 1 else 0)
    )
