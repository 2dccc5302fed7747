"""Lines of JSON, compressed or not: a text or a path each, or an object with columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from mass_serve.inputs.errors import InputTooLargeError, InvalidTextError
from mass_serve.jobs.sources.content import MOST_BYTES, PASSED, Found, Read
from mass_serve.jobs.sources.opening import Opened
from mass_serve.jobs.sources.values import Columns, found_in, group_in, id_in

# An image in base64 takes a third more than its bytes.
MOST_LINE_BYTES = 2 * MOST_BYTES
_PIECE = 1 << 20


def read_lines(opened: Opened, start: int, columns: Columns) -> Iterator[Read]:
    """Yields the inputs, those before the row `start` as PASSED; lines of nothing but blanks are none."""
    name, row = opened.tree.shown(opened.path), 0
    for number, line in _lines(opened.file):
        if line is not None and not line.strip():
            continue
        if row < start:
            yield Read(row, PASSED)
        else:
            found, own_id, group = _parsed(line, opened, columns)
            yield Read(row, found, own_id or f"{name}:{number}", opened.share, group)
        row += 1


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yields every line and its number from 1; None for one that is too long to be held in memory."""
    number = 1
    while line := file.readline(MOST_LINE_BYTES + 1):
        if len(line) > MOST_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(_PIECE)
            yield number, None
        else:
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        number += 1


def _parsed(line: bytes | None, opened: Opened, columns: Columns) -> tuple[Found, str | None, str | None]:
    """Returns the input of a line, what the line calls it, and the group that it is of."""
    if line is None:
        problem = f"The line has more than {MOST_LINE_BYTES >> 20} MiB, the limit."
        return InputTooLargeError(problem), None, None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InvalidTextError(f"The line is no JSON: {error}."), None, None
    row = value if isinstance(value, dict) else {columns.input: value}
    return found_in(row, columns, opened.read_beside), id_in(row, columns), group_in(row, columns)
