"""The bytes of a request for inference, taken apart before they are parsed.

A parser would copy the tensors, and holds every other thread up for as long as it takes. What is left without
them is small, unless somebody put the tensors elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from mass_serve.sandbox.messages import Buffer
from mass_serve.server.errors import BadRequestError
from mass_serve.server.rpc.open_inference_pb2 import ModelInferRequest

# Of the outermost message; a request has some twenty, with all outputs and a parameter for each.
MOST_FIELDS = 1000
VARINT, EIGHT_BYTES, DELIMITED, FOUR_BYTES = 0, 1, 2, 5
RAW_TENSOR = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | DELIMITED
MALFORMED = "The message is no ModelInferRequest; send one of the protocol's schema."


@dataclass(frozen=True)
class Parts:
    """A serialised message without its raw tensors, and those, which are views of it."""

    rest: bytes
    raw_tensors: list[memoryview]


def split(message: Buffer) -> Parts:
    """Takes the fields of `raw_input_contents` out of a message. Raises BadRequestError."""
    view = memoryview(message)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    position = 0
    while position < len(view):
        if len(kept) + len(raw) == MOST_FIELDS:
            raise BadRequestError(f"The message has more than {MOST_FIELDS} fields, which is the limit.")
        tag, value = _varint(view, position)
        start, end = _value(view, value, tag & 7)
        if tag == RAW_TENSOR:
            raw.append(view[start:end])
        else:
            kept.append(view[position:end])
        position = end
    return Parts(b"".join(kept), raw)


def _value(view: memoryview, position: int, wire_type: int) -> tuple[int, int]:
    """Returns where the value that begins at a position has its content, and where that ends."""
    start = position
    if wire_type == VARINT:
        _, end = _varint(view, position)
    elif wire_type == DELIMITED:
        length, start = _varint(view, position)
        end = start + length
    elif wire_type in (EIGHT_BYTES, FOUR_BYTES):
        end = start + (8 if wire_type == EIGHT_BYTES else 4)
    else:
        raise BadRequestError(MALFORMED)
    if end > len(view):
        raise BadRequestError(MALFORMED)
    return start, end


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """Returns the number of variable length at a position, and the position behind it."""
    number = 0
    for index, byte in enumerate(view[position : position + 10]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, position + index + 1
    raise BadRequestError(MALFORMED)
