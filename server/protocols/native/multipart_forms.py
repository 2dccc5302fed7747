"""multipart/form-data that is already in memory, cut into its parts by python-multipart, within limits."""

from __future__ import annotations

from dataclasses import dataclass

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from mass_serve.server.errors import BadRequestError, TooLargeError

# The longest line that can open a body: RFC 2046 allows 70 characters of boundary, and python-multipart 256.
LONGEST_OPENING = 256
# Of one part, and of one of them.
MOST_HEADERS = 16
LONGEST_HEADER = 8192


@dataclass(frozen=True)
class Part:
    """One field of a form."""

    name: str
    data: bytes


def parse_multipart(body: bytes, most_parts: int) -> list[Part]:
    """Cuts a form into its parts; what follows its closing boundary is not read.

    The boundary is read off the body's first line, as the header may be missing or wrong.

    Raises BadRequestError, and TooLargeError for more than `most_parts`.
    """
    opening = body[:LONGEST_OPENING].partition(b"\r\n")[0]
    boundary = _boundary(body)
    # No part may hold the boundary (RFC 2046, 5.1.1); the parser would take its time with each that does.
    if body.count(b"\r\n--" + boundary) > most_parts:
        raise TooLargeError(f"The form has more than {most_parts} parts, which is the limit; send fewer.")
    # The parser takes blanks behind every boundary but the first.
    return _Form().read(boundary, b"--" + boundary, body[len(opening) :])


def _boundary(body: bytes) -> bytes:
    """Returns what follows the two dashes of the first line. Raises BadRequestError."""
    opening, separator, _ = body[:LONGEST_OPENING].partition(b"\r\n")
    boundary = opening[2:].rstrip(b" \t")
    if not (opening.startswith(b"--") and separator and boundary):
        raise BadRequestError(
            "The multipart body does not start with its boundary; send the images as parts named 'images'."
        )
    return boundary


class _Form:
    """Collects the parts of one form from what the parser finds in its body."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._ended = False
        self._name: bytes | None = None
        self._header = self._value = self._data = b""

    def read(self, boundary: bytes, *pieces: bytes) -> list[Part]:
        """Returns the parts of a body in pieces. Raises BadRequestError."""
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._check_name,
                "on_part_data": self._part_data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
            max_header_count=MOST_HEADERS,
            max_header_size=LONGEST_HEADER,
        )
        try:
            for piece in pieces:
                parser.write(piece)
        except MultipartParseError as error:
            raise BadRequestError(
                "The multipart body is malformed; send the images as parts named 'images', each with at most"
                f" {MOST_HEADERS} headers of {LONGEST_HEADER} bytes."
            ) from error
        if not self._ended:
            raise BadRequestError(
                "The multipart body is cut off before its closing boundary; send all of it."
            )
        return self._parts

    def _begin(self) -> None:
        self._name, self._header, self._value, self._data = None, b"", b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name is None and self._header.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name")
        self._header = self._value = b""

    def _check_name(self) -> None:
        if self._name is None:
            raise BadRequestError(
                "A part of the multipart body has no name; name the images' parts 'images'."
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        # The body comes in one piece, and so does the data, but for what looked like a boundary before it.
        self._data += data[start:end]

    def _end(self) -> None:
        assert self._name is not None  # or it would have been refused at the end of its headers
        self._parts.append(Part(self._name.decode("utf-8", "replace"), self._data))

    def _finish(self) -> None:
        self._ended = True
