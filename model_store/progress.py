"""Progress of long work: how it is reported, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

# Called with a stage ("factoring digits"), the steps done and the steps in all.
Progress: TypeAlias = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Reports nothing."""
