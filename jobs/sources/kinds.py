"""Which files hold inputs, and how, by the ends of their names."""

from __future__ import annotations

from typing import Literal

# A file that is one input; lines of JSON; a table with a column of inputs; an archive of files.
Kind = Literal["whole", "lines", "parquet", "tar"]
COMPRESSIONS = (".gz", ".bz2", ".xz")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
TEXTS = (".txt",)
_LINES = tuple(f"{name}{end}" for name in (".jsonl", ".ndjson") for end in ("", *COMPRESSIONS))
_TARS = (".tgz", *(f".tar{end}" for end in ("", *COMPRESSIONS)))
TEXT_FORMS = ".txt, .jsonl, .parquet or .tar files"
FORMS = "image files (text files where the store reads texts), .jsonl, .parquet or .tar"


def is_input(name: str, reads_texts: bool) -> bool:
    """Tells whether a file is one input of a store, by its name."""
    return name.lower().endswith(TEXTS if reads_texts else IMAGES)


def kind_of(name: str, reads_texts: bool) -> Kind | None:
    """Returns how a file holds inputs; None where it holds none."""
    lower = name.lower()
    if is_input(lower, reads_texts):
        return "whole"
    if lower.endswith(_LINES):
        return "lines"
    if lower.endswith(".parquet"):
        return "parquet"
    return "tar" if lower.endswith(_TARS) else None
