"""What a TIFF or BigTIFF declares in its first directory: size, strips or tiles."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from mass_serve.inputs.errors import InputTooLargeError
from mass_serve.inputs.images.surveyed import MOST_PARTS, ImageSurvey, corrupt, too_many

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_ENTRIES = 1000
# Of tags that are no strips: a palette of 16 bits has 196,608.
MOST_VALUES = 200_000
WIDTH, HEIGHT, SAMPLES, ROWS_PER_STRIP, PLANAR = 256, 257, 277, 278, 284
STRIP_OFFSETS, STRIP_COUNTS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 273, 279, 322, 323, 324, 325
READ = frozenset({WIDTH, HEIGHT, SAMPLES, ROWS_PER_STRIP, PLANAR, STRIP_OFFSETS, STRIP_COUNTS})
READ |= {TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS}
PARTS = frozenset({STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS})
VALUES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # the types of whole numbers
BYTES_OF_ANY = (1, 2, 7)  # types whose values are not made into numbers
# Tiles may jut out of the image; all of them together over its size by a factor, and a tile of a usual size.
MOST_TILED_OVER, USUAL_TILE = 4, 1024 * 1024


@dataclass(frozen=True)
class _Layout:
    """Holds how a directory is written: of TIFF, or of BigTIFF."""

    order: str
    big: bool

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))


def survey_tiff(data: bytes, max_pixels: int) -> ImageSurvey:
    """Reads the first directory and checks its strips or tiles."""
    layout = _Layout("<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+"))
    offset = struct.unpack_from(layout.order + ("Q" if layout.big else "I"), data, 8 if layout.big else 4)[0]
    tags = _first_directory(data, layout, offset)
    width, height = tags.get(WIDTH, 0), tags.get(HEIGHT, 0)
    if not width or not height:
        raise corrupt("TIFF")
    if width * height > max_pixels:
        return ImageSurvey("TIFF", width, height, width * height)  # too large, whatever its parts are
    return ImageSurvey("TIFF", width, height, _checked_parts(tags, width, height))


def _first_directory(data: bytes, layout: _Layout, offset: int) -> dict[int, int]:
    """Returns the first value of each tag that counts here; of the parts their number."""
    (entries,) = struct.unpack_from(layout.count, data, offset)
    if entries > MOST_ENTRIES:
        raise too_many("tags", MOST_ENTRIES)
    entry, start = layout.entry, offset + struct.calcsize(layout.count)
    found: dict[int, int] = {}
    for index in range(entries):
        tag, kind, count, value = entry.unpack_from(data, start + index * entry.size)
        if count > MOST_VALUES and kind not in BYTES_OF_ANY:
            raise too_many("values in a tag", MOST_VALUES)
        if tag in READ:
            if tag in found:
                raise corrupt("TIFF")  # decoders do not agree on which of the two counts
            found[tag] = count if tag in PARTS else _number(layout, kind, value)
    return found


def _number(layout: _Layout, kind: int, value: bytes) -> int:
    if kind not in VALUES or struct.calcsize(VALUES[kind]) > len(value):
        raise corrupt("TIFF")
    return int(struct.unpack_from(layout.order + VALUES[kind], value)[0])


def _checked_parts(tags: dict[int, int], width: int, height: int) -> int:
    """Returns the pixels that all strips or tiles have. Raises for parts that do not fit the image."""
    if max(tags.get(tag, 0) for tag in PARTS) > MOST_PARTS:
        raise too_many("strips or tiles", MOST_PARTS)
    if tags.get(PLANAR, 1) == 2 and tags.get(SAMPLES, 1) > 16:
        raise too_many("planes", 16)
    if TILE_OFFSETS not in tags:
        rows = min(tags.get(ROWS_PER_STRIP, height) or height, height)
        if math.ceil(height / rows) > MOST_PARTS:
            raise too_many("strips", MOST_PARTS)
        return width * height
    tile_width, tile_height = tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0)
    if not tile_width or not tile_height:
        raise corrupt("TIFF")
    tiles = math.ceil(width / tile_width) * math.ceil(height / tile_height)
    if tiles > MOST_PARTS:
        raise too_many("tiles", MOST_PARTS)
    tiled = tiles * tile_width * tile_height
    if tiled > MOST_TILED_OVER * width * height + USUAL_TILE:
        raise InputTooLargeError(
            f"The image has {width} x {height} pixels, and its tiles {tiled}; save it with smaller ones."
        )
    return tiled
