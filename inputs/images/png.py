"""What a PNG declares: its header, and how many chunks it has."""

from __future__ import annotations

import struct

from mass_serve.inputs.images.surveyed import MOST_PARTS, ImageSurvey, corrupt, too_many

HEADER = struct.Struct(">I4sIIBBBBB")
CHUNK = struct.Struct(">I4s")
# Of each colour type, the bits that a sample may have.
BIT_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def survey_png(data: bytes, max_pixels: int) -> ImageSurvey:  # noqa: ARG001 - every reader is told
    """Reads the header and counts the chunks."""
    length, kind, width, height, depth, colour, compression, filters, interlace = HEADER.unpack_from(data, 8)
    if (length, kind) != (13, b"IHDR") or depth not in BIT_DEPTHS.get(colour, ()):
        raise corrupt("PNG")
    if compression or filters or interlace > 1:
        raise corrupt("PNG")
    _count_chunks(data)
    # The passes of an interlaced image are put together pixel by pixel. Of an animation one image is decoded.
    return ImageSurvey("PNG", width, height, width * height * (1 + interlace))


def _count_chunks(data: bytes) -> None:
    """Walks the chunks, up to the last or to where the file breaks off, which its decoder will find."""
    position, end, unpack = 8, len(data) - 8, CHUNK.unpack_from
    for _ in range(MOST_PARTS):
        if position > end:
            return
        length, kind = unpack(data, position)
        if kind == b"IEND":
            return
        position += 12 + length
    raise too_many("chunks", MOST_PARTS)
