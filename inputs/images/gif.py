"""What a GIF declares: the screen, and the first frame, which is the one that is decoded."""

from __future__ import annotations

import struct

from mass_serve.inputs.images.surveyed import ImageSurvey, corrupt, too_many

SCREEN = struct.Struct("<HHBBB")
FRAME = struct.Struct("<HHHHB")
EXTENSION, IMAGE = 0x21, 0x2C
# Before the first frame, of 255 bytes each; a decoder puts a comment together anew for each.
MOST_BLOCKS = 4096


def survey_gif(data: bytes, max_pixels: int) -> ImageSurvey:  # noqa: ARG001 - every reader is told
    """Reads the screen and goes on to the first frame, which makes the screen larger where it juts out."""
    width, height, flags, _, _ = SCREEN.unpack_from(data, 6)
    position = _first_frame(data, 13 + _palette_bytes(flags))
    left, top, frame_width, frame_height, _ = FRAME.unpack_from(data, position + 1)
    if not frame_width or not frame_height:
        raise corrupt("GIF")
    width, height = max(width, left + frame_width), max(height, top + frame_height)
    return ImageSurvey("GIF", width, height, width * height)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _first_frame(data: bytes, position: int) -> int:
    """Returns where the first frame begins, behind the extensions."""
    blocks = 0
    while data[position] != IMAGE:
        if data[position] != EXTENSION:
            raise corrupt("GIF")
        position += 2
        while size := data[position]:
            position += 1 + size
            blocks = _one_more(blocks)
        position += 1
        blocks = _one_more(blocks)  # also of an extension without blocks
    return position


def _one_more(blocks: int) -> int:
    if blocks >= MOST_BLOCKS:
        raise too_many("blocks of comments", MOST_BLOCKS)
    return blocks + 1
