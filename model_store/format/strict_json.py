"""JSON that means one thing: every key once, numbers that are numbers, UTF-8.

Python's own reader lets the last of two equal keys win, so that two programs can read two stores from one
file, and it knows NaN and Infinity, which JSON does not.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def parse_json(content: bytes) -> Any:
    """Reads one JSON value. Raises ValueError, whose text is one clause, for anything that is not strict."""
    try:
        return json.loads(
            content.decode(),
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_constant=_no_number,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _no_number(text)
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:80]} is not a finite number")
