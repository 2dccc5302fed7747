"""Image files that cost a decoder far more than they weigh, made in code; all but the TIFFs are valid."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

PIECE = 1 << 20


@cache
def repeated_scans(side: int = 3400, scans: int = 50_000) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each costs a pass over all coefficients."""
    stream = io.BytesIO()
    Image.new("L", (side, side), 128).save(stream, "JPEG", progressive=True)
    file = stream.getvalue()
    last = file.rindex(b"\xff\xda")  # start of scan; a flat picture has no such bytes in its data
    return file[:last] + file[last:-2] * scans + file[-2:]


@cache
def huge_tile(side: int = 40_000) -> bytes:
    """A TIFF of 16 x 16 pixels with one deflated tile of `side` squared."""
    data = _deflated_zeros(side * side)
    tags = [
        *[(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1)],  # width ... samples; 8: deflate
        *[(322, side), (323, side), (324, 8), (325, len(data))],  # the tile's width, length, place, bytes
    ]
    return _tiff(data, tags)


@cache
def strip_a_row(rows: int = 8_000_000) -> bytes:
    """A TIFF one pixel wide with a strip for each row, all of them at the same byte."""
    offsets = np.full(rows, 8, dtype="<u4").tobytes()
    tags = [(256, 1), (257, rows), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)]
    return _tiff(offsets, tags, counts={273: rows})


@cache
def empty_chunks(count: int = 2_000_000) -> bytes:
    """A PNG of 16 x 16 with so many private chunks without content before its pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, "PNG")
    file = stream.getvalue()
    pixels = file.index(b"IDAT") - 4
    return file[:pixels] + _chunk(b"prVt", b"") * count + file[pixels:]


@cache
def filled_markers(count: int = 9_000, filling: int = 700) -> bytes:
    """A JPEG of 16 x 16 with so many empty comments, and before each so many bytes that say nothing."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, "JPEG")
    file = stream.getvalue()
    comment = struct.pack(">BBH", 0xFF, 0xFE, 2)
    return file[:2] + (b"\xff" * filling + comment) * count + file[2:]


@cache
def tiny_webp(width: int = 4000, height: int = 3000) -> bytes:
    """A lossless WebP of one colour: 12 megapixels in 34 bytes, because every code has one symbol."""
    bits = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 4)]  # no alpha, version 0
    bits += [(0, 3)]  # neither transform nor colour cache nor groups of codes
    for symbol in (40, 200, 40, 255, 0):  # green, red, blue, alpha, distance
        bits += [(0b101, 3), (symbol, 8)]  # a simple code, of one symbol, written in eight bits
    number, length = 0, 0
    for value, width_in_bits in bits:
        number |= value << length
        length += width_in_bits
    stream = number.to_bytes((length + 7) // 8, "little")
    chunk = b"VP8L" + struct.pack("<I", len(stream)) + stream + bytes(len(stream) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@cache
def black_and_white(side: int = 7000) -> bytes:
    """A valid PNG of a few kB, 49 megapixels, that takes 147 MB as RGB."""
    row = bytes(1 + (side + 7) // 8)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row * side, 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


@cache
def photograph(side: int, quality: int = 90) -> bytes:
    """A JPEG with the detail of a photograph."""
    noise = np.random.default_rng(side).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    large = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    large.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(data: bytes, tags: list[tuple[int, int]], counts: dict[int, int] | None = None) -> bytes:
    """A little-endian TIFF: header, data at byte 8, then one directory of LONG values."""
    counts = counts or {}
    entries = b"".join(struct.pack("<HHII", tag, 4, counts.get(tag, 1), value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def _deflated_zeros(count: int) -> bytes:
    """A zlib stream of zeros, put together of equal pieces: compressing gigabytes takes a while."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = packer.compress(bytes(PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    end = rest.compress(bytes(count % PIECE)) + rest.flush()
    checksum = (count % 65521) << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + piece * (count // PIECE) + end + struct.pack(">I", checksum)
