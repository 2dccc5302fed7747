"""multipart/form-data that is already in memory, cut into its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.errors import BadRequestError

# The longest line that can open a body: RFC 2046 allows 70 characters of boundary.
LONGEST_OPENING = 256

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


@dataclass(frozen=True)
class Part:
    """One field of a form."""

    name: str
    data: bytes


def parse_multipart(body: bytes) -> list[Part]:
    """The parts of a form.

    The boundary is read off the body's first line, as the header may be missing or wrong.

    Raises BadRequestError.
    """
    collector = _Collector()
    try:
        parser = MultipartParser(_boundary(body), collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise BadRequestError(
            "The multipart body is malformed; send the images as parts named 'images'."
        ) from error
    if not collector.ended:
        raise BadRequestError("The multipart body is cut off before its closing boundary; send all of it.")
    return collector.parts


def _boundary(body: bytes) -> bytes:
    """What follows the two dashes of the first line."""
    opening, separator, _ = body[:LONGEST_OPENING].partition(b"\r\n")
    boundary = opening[2:].rstrip(b" \t")
    if not (opening.startswith(b"--") and separator and boundary):
        raise BadRequestError(
            "The multipart body does not start with its boundary; send the images as parts named 'images'."
        )
    return boundary


class _Collector:
    """Gathers what the parser calls back with."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._begin()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._field = b""
        self._value = b""
        self._disposition = b""
        self._data = bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _on_part_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if name is None:
            raise BadRequestError(
                "A part of the multipart body has no name; name the images' parts 'images'."
            )
        self.parts.append(Part(name.decode("utf-8", "replace"), bytes(self._data)))

    def _on_end(self) -> None:
        self.ended = True
