"""What is read of a source: inputs one after the other, and in the place of one that cannot be read, why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from mass_serve.inputs.errors import InputError, InputTooLargeError, InvalidTextError
from mass_serve.inputs.texts import Text, parts

# Of one image or text, whatever its file or archive says: they are read whole.
MOST_BYTES = 256 << 20
_PIECE = 1 << 18
# The bytes of an image file, or a text.
Content: TypeAlias = bytes | Text
# What an input is, or what is wrong with it.
Found: TypeAlias = Content | InputError
# In the place of one that is passed over: a reader counts it and no more.
PASSED = b""


@dataclass(frozen=True, slots=True)
class Read:
    """One input of a source."""

    row: int  # its place among the inputs of its source, from 0
    found: Found
    id: str | None = None  # as the source calls it
    share: float = 1.0  # how much of the source is read when this is
    group: str | None = None  # inputs with one are of one task


def read_whole(file: BinaryIO) -> bytes:
    """Reads all of a file that is one input. Raises InputTooLargeError, and OSError."""
    pieces, left = [], MOST_BYTES
    # Piece by piece: what is asked for is taken of the memory, however little the file has.
    while piece := file.read(_PIECE):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise InputTooLargeError(
                f"It has more than {MOST_BYTES >> 20} MiB, which is the limit for one input."
            )
    return b"".join(pieces)


def text_of(data: bytes) -> str:
    """Returns the text that a file holds, without blanks around it. Raises InvalidTextError."""
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InvalidTextError(f"It is no UTF-8 at byte {error.start}: save it as that.") from error


def weight(found: Found) -> int:
    """Returns about how many bytes an input takes until it is prepared."""
    if isinstance(found, InputError):
        return 0
    return len(found) if isinstance(found, bytes) else 4 * sum(map(len, parts(found)))
