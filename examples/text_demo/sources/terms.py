"""Terms of computing by subject: the Free On-line Dictionary of Computing (GFDL), from Debian."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from examples.from_packages.packages import fetch
from examples.text_demo.packages import FOLDOC
from examples.text_demo.texts import Text

SUBJECTS = 8  # those with the most entries
_ENTRY = re.compile(r"^\n   <([a-z ]+)> (.*?)(?=^\S|\Z)", re.DOTALL | re.MULTILINE)
_REFERENCE = re.compile(r"[{}]")


def terms(raw: Path) -> Iterator[Text]:
    """What the dictionary says of each term that has one subject, without the term itself."""
    file = fetch(FOLDOC, raw) / "usr/share/dictd/foldoc.dict.dz"
    return defined(gzip.decompress(file.read_bytes()).decode("utf-8"))


def defined(dictionary: str) -> Iterator[Text]:
    """The definitions in the text of the dictionary, each a group of its own."""
    entries = _ENTRY.findall(dictionary)
    frequent = {subject for subject, _ in Counter(subject for subject, _ in entries).most_common(SUBJECTS)}
    for number, (subject, definition) in enumerate(entries):
        if subject in frequent:
            yield Text(subject, str(number), _REFERENCE.sub("", definition))
