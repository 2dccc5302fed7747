"""What a command prints, line by line, and whether what it says is within bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Line(NamedTuple):
    """One line of a command's output."""

    text: str
    held: bool = True  # False where it tells of a bound that was missed


def show(lines: Iterable[Line]) -> int:
    """Prints lines as they come, and returns the command's exit status: 1 where a bound was missed."""
    status = 0
    for line in lines:
        print(line.text, flush=True)
        status |= not line.held
    return status
