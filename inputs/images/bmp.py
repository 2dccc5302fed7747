"""What a BMP declares, in the headers of Windows and OS/2."""

from __future__ import annotations

import struct

from mass_serve.inputs.errors import CorruptInputError
from mass_serve.inputs.images.surveyed import ImageSurvey, corrupt

OLD_HEADER = struct.Struct("<HHHH")  # of OS/2: width, height, planes, bits
HEADER = struct.Struct("<iiHHI")  # width, height, planes, bits, compression
OLD_SIZE, SIZES = 12, (40, 52, 56, 64, 108, 124)
BITS = (1, 4, 8, 16, 24, 32)
UNCOMPRESSED, BITFIELDS = 0, (3, 6)
RUNS = {1: 8, 2: 4}  # run-length compression, and the bits that it has
# Runs are undone in Python: a step of that costs as much as so many pixels do.
PIXELS_PER_STEP = 100


def survey_bmp(data: bytes, max_pixels: int) -> ImageSurvey:  # noqa: ARG001 - every reader is told
    """Reads the size, which may be negative for rows from the top, and whether the file has all rows."""
    offset, header = struct.unpack_from("<II", data, 10)
    if header == OLD_SIZE:
        width, height, _, bits = OLD_HEADER.unpack_from(data, 18)
        compression = UNCOMPRESSED
    elif header in SIZES:
        width, height, _, bits, compression = HEADER.unpack_from(data, 18)
    else:
        raise corrupt("BMP")
    height = abs(height)
    if width <= 0 or bits not in BITS:
        raise corrupt("BMP")
    if compression in RUNS:
        if bits != RUNS[compression]:
            raise corrupt("BMP")
        # A run takes two bytes, and gives at least a pixel.
        steps = min(width * height, (len(data) - offset) // 2)
        return ImageSurvey("BMP", width, height, width * height + PIXELS_PER_STEP * max(0, steps))
    if compression != UNCOMPRESSED and compression not in BITFIELDS:
        raise corrupt("BMP")
    _check_length(len(data) - offset, width, height, bits)
    return ImageSurvey("BMP", width, height, width * height)


def _check_length(available: int, width: int, height: int, bits: int) -> None:
    """Raises CorruptInputError where rows are missing; the last may lack its padding."""
    row = (width * bits + 7) // 8
    if available < (row + 3) // 4 * 4 * (height - 1) + row:
        raise CorruptInputError("The BMP image is truncated or corrupt; send the whole file.")
