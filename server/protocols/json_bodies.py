"""JSON of callers, bounded before it is parsed: a parser holds every other thread up while it works."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from mass_serve.server.errors import BadRequestError, TooLargeError, first_problem

M = TypeVar("M", bound=BaseModel)

# Of a body without tensors: options, names of tasks, and keys that are not read here.
MOST_OPTIONS = 10_000
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
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        # What pydantic says beside the place and the message costs time and memory for each problem of many.
        problems = error.errors(include_input=False, include_url=False)
        raise BadRequestError(first_problem(problems)) from error
