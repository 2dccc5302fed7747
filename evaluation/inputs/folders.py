"""Files of some kinds in a folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


def files_below(place: Path, suffixes: Collection[str]) -> list[Path]:
    """The files with one of the suffixes in a folder and in those within, sorted; or a file that is one."""
    found = place.rglob("*") if place.is_dir() else [place]
    return sorted(path for path in found if path.suffix.lower() in suffixes and path.is_file())
