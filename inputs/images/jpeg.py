"""What a JPEG declares: its frame, and in how many scans it comes."""

from __future__ import annotations

import re
import struct

from mass_serve.inputs.errors import InputTooLargeError
from mass_serve.inputs.images.surveyed import MOST_PARTS, ImageSurvey, corrupt, too_many

FRAME = struct.Struct(">BHHB")  # bits, height, width, components
LENGTH = struct.Struct(">H")  # of a segment, with itself
# Start-of-frame markers: those of C4, C8 and CC mean something else.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
START_OF_SCAN, END, FILL = 0xDA, 0xD9, 0xFF
# Filling, markers without a length behind them, and the zero that says that a 0xff is none.
PASSED_OVER = frozenset(range(0xD0, 0xD9)) | {0x00, 0x01, FILL}
FILLING = re.compile(rb"\xff+")

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
    # Those that are passed over count too: between two segments there may be any number.
    for _ in range(MOST_PARTS):
        marker, position = _next_marker(data, position)
        if marker in PASSED_OVER:
            continue
        if marker == END:
            break
        (length,) = LENGTH.unpack_from(data, position)
        if marker == START_OF_SCAN:
            if not components:
                break
            many = progressive or data[position + 2] < components
            scans = _count_scans(data, position - 2) if many else 1
            return _with_scans(width, height, scans, max_pixels)
        if marker in FRAMES:
            if components:  # another frame behind the first could be the one that is decoded
                break
            _, height, width, components = FRAME.unpack_from(data, position + 2)
            progressive = marker in PROGRESSIVE
        position += length
    else:
        raise too_many("markers", MOST_PARTS)
    raise corrupt("JPEG")


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """Returns the next marker, or a run of filling, and where to go on; what is neither is passed over."""
    position = data.find(b"\xff", position)
    if position < 0:
        raise corrupt("JPEG")
    marker = data[position + 1]
    if marker == FILL:
        # A run is one step however long it is, and its last byte may be the marker's first.
        run = FILLING.match(data, position, position + PIECE)
        assert run is not None
        return FILL, run.end() - 1
    return marker, position + 2


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
