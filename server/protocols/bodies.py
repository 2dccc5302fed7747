"""The bodies of callers: JSON or an image, told apart by the bytes, and JSON bounded before it is parsed.

A parser holds every other thread up while it works.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mass_serve.server.errors import BadRequestError, TooLargeError, first_problem

M = TypeVar("M", bound=BaseModel)

# Of a body without tensors: options, names of tasks, and keys that are not read here.
MOST_OPTIONS = 10_000
# JSON with files in base64 is parsed in a worker process from so many bytes on: here it would hold the
# interpreter for more than the five milliseconds that threads have anyhow.
MOST_JSON_HERE = 1 << 20
# What browsers put before base64; of which kind the image is its bytes say.
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
# Of any body: lists in lists need no commas.
MOST_LISTS = 1_000_000


def parse_json(model: type[M], body: bytes, most_values: int) -> M:
    """Reads a body as `model`. Raises BadRequestError, and TooLargeError beyond `most_values` values."""
    # Every value but the first of a list or object has a comma before it; the text of a string may too.
    if body.count(b",") > most_values or body.count(b"[") + body.count(b"{") > MOST_LISTS:
        raise TooLargeError(
            f"The JSON holds more than {min(most_values, MOST_LISTS)} values, which is the limit; send fewer"
            " at a time, or send tensors in binary form."
        )
    with _first_problem_told():
        return model.model_validate_json(body)


def checked(model: type[M], content: Mapping[str, Any]) -> M:
    """Returns content that was not JSON as `model`. Raises BadRequestError."""
    with _first_problem_told():
        return model.model_validate(content)


@contextmanager
def _first_problem_told() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        # What pydantic says beside the place and the message costs time and memory for each problem of many.
        problems = error.errors(include_input=False, include_url=False)
        raise BadRequestError(_problem_of_text(problems[0]) or first_problem(problems)) from error


# What the parser says of characters that are none, and what that means to whoever sent them.
_NO_CHARACTERS = {
    "lone leading surrogate in hex escape": "half of a surrogate pair; send whole characters",
    "unexpected end of hex escape": "half of a surrogate pair; send whole characters",
    "invalid unicode code point": "bytes that are not UTF-8; send text in UTF-8",
}


def _problem_of_text(problem: Mapping[str, Any]) -> str | None:
    """Returns a sentence for JSON whose characters are none; None where something else is wrong."""
    what, _, where = str(problem.get("ctx", {}).get("error", "")).partition(" at line ")
    if problem["type"] != "json_invalid" or what not in _NO_CHARACTERS:
        return None
    return f"The JSON has, just before line {where}, {_NO_CHARACTERS[what]}."


def is_json(body: bytes, content_type: str) -> bool:
    """Tells whether a body is, or was meant as, JSON rather than an image."""
    starts_so = body[:64].lstrip().startswith(b"{")
    return starts_so or ("json" in content_type.lower() and not is_image_like(body))


def is_form(body: bytes, content_type: str) -> bool:
    """Tells whether a body is a multipart form: no image and no JSON starts with two dashes."""
    starts_so = body[:64].lstrip().startswith(b"--")
    return starts_so or (content_type.lower().startswith("multipart/") and not is_image_like(body))


def is_large_json(body: bytes, content_type: str) -> bool:
    """Tells whether a body is JSON that is parsed in a worker process."""
    return len(body) > MOST_JSON_HERE and is_json(body, content_type) and not is_form(body, content_type)


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
    """Returns the bytes that base64, or a data URI of it, stands for.

    Raises BadRequestError, which says where the text was.
    """
    prefix = _DATA_URI.match(text)
    try:
        return base64.b64decode(text[prefix.end() :] if prefix else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"{where} is not base64; send it padded and without line breaks.") from error
