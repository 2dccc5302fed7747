"""multipart/form-data that is already in memory, cut into its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from mass_serve.server.errors import BadRequestError, TooLargeError

# The longest line that can open a body: RFC 2046 allows 70 characters of boundary.
LONGEST_OPENING = 256
# The longest headers of one part.
LONGEST_HEAD = 8192


@dataclass(frozen=True)
class Part:
    """One field of a form."""

    name: str
    data: bytes


def parse_multipart(body: bytes, most_parts: int) -> list[Part]:
    """Cuts a form into its parts.

    The boundary is read off the body's first line, as the header may be missing or wrong.

    Raises BadRequestError, and TooLargeError for more than `most_parts`.
    """
    # Nothing stands before the first boundary; the closing one takes a cut too.
    pieces = (b"\r\n" + body).split(b"\r\n--" + _boundary(body), most_parts + 1)[1:]
    return list(_parts(pieces, most_parts))


def _boundary(body: bytes) -> bytes:
    """Returns what follows the two dashes of the first line. Raises BadRequestError."""
    opening, separator, _ = body[:LONGEST_OPENING].partition(b"\r\n")
    boundary = opening[2:].rstrip(b" \t")
    if not (opening.startswith(b"--") and separator and boundary):
        raise BadRequestError(
            "The multipart body does not start with its boundary; send the images as parts named 'images'."
        )
    return boundary


def _parts(pieces: list[bytes], most_parts: int) -> Iterator[Part]:
    """Reads what follows each boundary, up to the last one, which is marked by two dashes."""
    for number, piece in enumerate(pieces):
        if piece.startswith(b"--"):
            return
        if number == most_parts:
            raise TooLargeError(f"The form has more than {most_parts} parts, which is the limit; send fewer.")
        padding, line_end, part = piece.partition(b"\r\n")
        if padding.strip(b" \t") or not line_end:
            raise BadRequestError("The multipart body is malformed; send the images as parts named 'images'.")
        yield _part(part)
    raise BadRequestError("The multipart body is cut off before its closing boundary; send all of it.")


def _part(part: bytes) -> Part:
    """Reads one part: headers, an empty line, and data. Raises BadRequestError for one without a name."""
    head, end, _ = part[:LONGEST_HEAD].partition(b"\r\n\r\n")
    for line in head.split(b"\r\n") if end else ():
        header, _, value = line.partition(b":")
        if header.strip().lower() == b"content-disposition":
            name = parse_options_header(value.strip())[1].get(b"name")
            if name is not None:
                return Part(name.decode("utf-8", "replace"), part[len(head + end) :])
    raise BadRequestError("A part of the multipart body has no name; name the images' parts 'images'.")
