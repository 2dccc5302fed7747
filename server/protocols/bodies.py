"""The bodies of callers: JSON or an image, told apart by the bytes, and JSON bounded before it is parsed.

A parser holds every other thread up while it works.
"""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from mass_serve.server.errors import BadRequestError, TooLargeError, first_problem

M = TypeVar("M", bound=BaseModel)

# Of a body without tensors: options, names of tasks, and keys that are not read here.
MOST_OPTIONS = 10_000
COUNTED_AT_ONCE = 1 << 18
# Characters, in whole groups of four; between two pieces other threads have their turn.
BASE64_AT_ONCE = 1 << 16
# Of any body: lists in lists need no commas.
MOST_LISTS = 1_000_000


def parse_json(model: type[M], body: bytes, most_values: int) -> M:
    """Reads a body as `model`. Raises BadRequestError, and TooLargeError beyond `most_values` values."""
    # Every value but the first of a list or object has a comma before it; the text of a string may too.
    if _count(body, b",") > most_values or _count(body, b"[") + _count(body, b"{") > MOST_LISTS:
        raise TooLargeError(
            f"The JSON holds more than {min(most_values, MOST_LISTS)} values, which is the limit; send fewer"
            " at a time, or send tensors in binary form."
        )
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        # What pydantic says beside the place and the message costs time and memory for each problem of many.
        problems = error.errors(include_input=False, include_url=False)
        raise BadRequestError(first_problem(problems)) from error


def _count(body: bytes, what: bytes) -> int:
    """Counts in pieces, between which other threads have their turn."""
    return sum(body.count(what, at, at + COUNTED_AT_ONCE) for at in range(0, len(body), COUNTED_AT_ONCE))


def is_json(body: bytes, content_type: str) -> bool:
    """Tells whether a body is, or was meant as, JSON rather than an image."""
    starts_so = body[:64].lstrip().startswith(b"{")
    return starts_so or ("json" in content_type.lower() and not is_image_like(body))


def is_image_like(body: bytes) -> bool:
    """Tells whether a body cannot be text."""
    # Every image format has bytes in its head that are not UTF-8.
    head = body[:512]
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start < len(head) - 3  # a character cut in two at the end is still text
    return b"\0" in head


def decoded_base64(text: str, where: str) -> bytes:
    """Returns the bytes that `text` stands for. Raises BadRequestError, which says where the text was."""
    try:
        if len(text) <= BASE64_AT_ONCE:
            return base64.b64decode(text, validate=True)
        if "=" in text[:-2]:
            raise ValueError("there is padding within")
        pieces = range(0, len(text), BASE64_AT_ONCE)
        return b"".join(base64.b64decode(text[at : at + BASE64_AT_ONCE], validate=True) for at in pieces)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(
            f"{where} is not base64; send it padded, without line breaks or prefix."
        ) from error
