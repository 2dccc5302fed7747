"""What a WebP declares: one image, or a canvas with frames on it."""

from __future__ import annotations

import struct

from mass_serve.inputs.images.surveyed import MOST_PARTS, ImageSurvey, corrupt, too_many

CHUNK = struct.Struct("<4sI")
LOSSY = struct.Struct("<3s3sHH")  # a frame's tag, the start code, width and height with two bits of scale
LOSSLESS = struct.Struct("<BI")
FRAME = struct.Struct("12s")  # half its left, half its top, width - 1, height - 1, of 24 bits each
UINT24 = 0xFFFFFF
START_CODE = b"\x9d\x01\x2a"
ANIMATED = 2


def survey_webp(data: bytes, max_pixels: int) -> ImageSurvey:  # noqa: ARG001 - every reader is told
    """Reads the size of the image or of the canvas, and that every image in it lies within."""
    kind, _ = CHUNK.unpack_from(data, 12)
    if kind == b"VP8X":
        width, height = _uint24(data, 24) + 1, _uint24(data, 27) + 1
        _check_canvas(data, width, height, bool(data[20] & ANIMATED))
        # A frame is decoded, and then laid on the canvas.
        return ImageSurvey("WEBP", width, height, 2 * width * height)
    width, height = _image_size(data, 12)
    return ImageSurvey("WEBP", width, height, width * height)


def _uint24(data: bytes, position: int) -> int:
    low, high = struct.unpack_from("<HB", data, position)
    return int(low | high << 16)


def _image_size(data: bytes, position: int) -> tuple[int, int]:
    """Returns width and height of the bitstream in a chunk."""
    kind, _ = CHUNK.unpack_from(data, position)
    if kind == b"VP8 ":
        _, code, width, height = LOSSY.unpack_from(data, position + 8)
        if code == START_CODE:
            return width & 0x3FFF, height & 0x3FFF
    elif kind == b"VP8L":
        signature, bits = LOSSLESS.unpack_from(data, position + 8)
        if signature == 0x2F:
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise corrupt("WEBP")


def _check_canvas(data: bytes, width: int, height: int, animated: bool) -> None:
    """Raises CorruptInputError for an image that is not of the canvas's size, or a frame that juts out."""
    position, end, images = 30, len(data) - 8, 0
    for _ in range(MOST_PARTS):
        if position > end:
            if images:
                return
            raise corrupt("WEBP")
        kind, size = CHUNK.unpack_from(data, position)
        if kind == b"ANMF":
            images += 1
            # Read at once, because an animation may have thousands.
            place = int.from_bytes(FRAME.unpack_from(data, position + 8)[0], "little")
            right = 2 * (place & UINT24) + (place >> 48 & UINT24) + 1
            bottom = 2 * (place >> 24 & UINT24) + (place >> 72) + 1
            if right > width or bottom > height:
                raise corrupt("WEBP")
        elif kind in (b"VP8 ", b"VP8L") and not animated:
            images += 1
            if _image_size(data, position) != (width, height):
                raise corrupt("WEBP")
        position += 8 + size + (size & 1)
    raise too_many("chunks", MOST_PARTS)
