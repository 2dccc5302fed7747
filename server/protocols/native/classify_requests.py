"""The three forms of a classification request, told apart by the body itself.

Clients send images with no content type, or with whatever their HTTP library puts there (curl says
`application/x-www-form-urlencoded`), so the header only decides which mistake a malformed body made.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mass_serve.server.errors import BadRequestError, TooLargeError
from mass_serve.server.protocols.json_bodies import MOST_OPTIONS, parse_json
from mass_serve.server.protocols.native.multipart_forms import Part, parse_multipart

DEFAULT_TOP_K = 5
# Of a form, beside its images.
MOST_FIELDS = 1000


class ImageItem(BaseModel):
    """One image of a JSON request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    b64: Annotated[str, Field(description="the image file in standard base64")]


class ClassifyBody(BaseModel):
    """A classification request as JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[ImageItem] = Field(fail_fast=True)
    tasks: list[str] | None = Field(
        None, fail_fast=True, description="choose among these tasks; one name skips the routing"
    )
    top_k: int | None = Field(None, description="how many labels to return per image, 5 by default")


@dataclass(frozen=True)
class Limits:
    """Holds what one request may ask for."""

    max_images: int
    max_top_k: int


@dataclass(frozen=True)
class Options:
    """Holds what a caller may choose, as query parameters or in the body, which wins."""

    tasks: Sequence[str] | None = None
    top_k: int | None = None


@dataclass(frozen=True)
class ClassifyRequest:
    """A well-formed request: encoded images and what to answer about them."""

    files: Sequence[bytes]
    tasks: Sequence[str] | None
    top_k: int


def parse_request(body: bytes, content_type: str, query: Options, limits: Limits) -> ClassifyRequest:
    """Reads any of the three forms. Raises BadRequestError or TooLargeError."""
    if not body:
        raise BadRequestError(
            "The request has no body; send an image, a multipart form with 'images', or JSON."
        )
    files, options = _read_form(body, content_type.strip().lower(), limits)
    tasks = query.tasks if options.tasks is None else options.tasks
    top_k = query.top_k if options.top_k is None else options.top_k
    return ClassifyRequest(
        _checked_files(files, limits),
        _checked_tasks(tasks),
        checked_top_k(DEFAULT_TOP_K if top_k is None else top_k, limits.max_top_k),
    )


def _read_form(body: bytes, content_type: str, limits: Limits) -> tuple[list[bytes], Options]:
    """Returns the images of a body and the options in it, whichever form it has."""
    # Images never start with a brace or two dashes, nor are they text.
    start = body[:64].lstrip()
    if start.startswith(b"--") or (content_type.startswith("multipart/") and not _is_image_like(body)):
        return _read_multipart(parse_multipart(body, limits.max_images + MOST_FIELDS))
    if is_json(body, content_type):
        return _read_json(body, limits)
    return [body], Options()


def is_json(body: bytes, content_type: str) -> bool:
    """Tells whether a body is, or was meant as, JSON rather than an image."""
    starts_so = body[:64].lstrip().startswith(b"{")
    return starts_so or ("json" in content_type.lower() and not _is_image_like(body))


def _is_image_like(body: bytes) -> bool:
    """Tells whether a body cannot be text."""
    # Every image format has bytes in its head that are not UTF-8.
    head = body[:512]
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start < len(head) - 3  # a character cut in two at the end is still text
    return b"\0" in head


def _read_json(body: bytes, limits: Limits) -> tuple[list[bytes], Options]:
    parsed = parse_json(ClassifyBody, body, MOST_OPTIONS + 2 * limits.max_images)
    files = [decoded_base64(item.b64, f"images[{index}].b64") for index, item in enumerate(parsed.images)]
    return files, Options(parsed.tasks, parsed.top_k)


def decoded_base64(text: str, where: str) -> bytes:
    """Returns the bytes that `text` stands for. Raises BadRequestError, which says where the text was."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(
            f"{where} is not base64; send it padded, without line breaks or prefix."
        ) from error


def _read_multipart(parts: Sequence[Part]) -> tuple[list[bytes], Options]:
    files: list[bytes] = []
    tasks: list[str] | None = None
    top_k: int | None = None
    for part in parts:
        if part.name == "images":
            files.append(part.data)
        elif part.name == "tasks":
            tasks = tasks or []
            tasks.extend(split_names([_text(part)]))
        elif part.name == "top_k":
            top_k = _integer(_text(part))
        else:
            raise BadRequestError(
                f"The multipart field {part.name[:80]!a} is unknown; the fields are images, tasks and top_k."
            )
    return files, Options(tasks, top_k)


def _text(part: Part) -> str:
    return part.data[:4096].decode("utf-8", "replace").strip()


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise BadRequestError(f"top_k must be a whole number, not {text[:80]!a}.") from error


def split_names(values: Sequence[str]) -> list[str]:
    """Splits at commas: `a,b` and `a` then `b` mean the same."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _checked_files(files: Sequence[bytes], limits: Limits) -> Sequence[bytes]:
    if not files:
        raise BadRequestError("The request holds no image; send at least one, as 'images'.")
    if len(files) > limits.max_images:
        raise TooLargeError(
            f"The request holds {len(files)} images, the limit is {limits.max_images}; send fewer at a time."
        )
    return files


def _checked_tasks(tasks: Sequence[str] | None) -> Sequence[str] | None:
    if tasks is not None and not tasks:
        raise BadRequestError(
            "'tasks' is empty; name at least one task, or leave it out to choose among all."
        )
    return tasks


def checked_top_k(top_k: int, limit: int) -> int:
    """Returns `top_k` if it may be asked for. Raises BadRequestError."""
    if not 1 <= top_k <= limit:
        raise BadRequestError(f"top_k must be between 1 and {limit}.")
    return top_k
