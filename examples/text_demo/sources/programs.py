"""Lines of code by programming language: sources that Debian packages carry."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from examples.from_packages.packages import fetch
from examples.text_demo.packages import CODE
from examples.text_demo.texts import Text

# How the files of a language are named, where all that a package has besides is left aside.
PATTERNS = {
    "c++": "usr/include/c++/**/*",
    "go": "**/*.go",
    "javascript": "**/*.js",
    "lisp": "**/*.el",
    "perl": "**/*.pm",
    "php": "**/*.php",
    "python": "**/*.py",
    "ruby": "**/*.rb",
    "shell": "usr/share/bash-completion/completions/*",
    "tcl": "**/*.tcl",
}
LINES = 4  # of a text
FILE_TEXTS = 3  # of a file, at most
FILES = 700  # of a language, at most


def code(raw: Path) -> Iterator[Text]:
    """Some places of every file, behind what it begins with; a file in one group."""
    for language, package in CODE.items():
        paths = sorted(path for path in fetch(package, raw).glob(PATTERNS[language]) if _is_source(path))
        for path in random.Random(language).sample(paths, min(FILES, len(paths))):
            for text in places(path.read_text(encoding="utf-8", errors="replace"), path.name):
                yield Text(language, f"{language} {path.name}", text)


def places(source: str, seed: str) -> Iterator[str]:
    """Up to FILE_TEXTS times LINES lines that are not blank; at the beginning licences stand."""
    lines = [line.strip() for line in source.splitlines() if line.strip()][LINES:]
    starts = range(0, len(lines) - LINES, LINES)
    for start in sorted(random.Random(seed).sample(starts, min(FILE_TEXTS, len(starts)))):
        yield "\n".join(lines[start : start + LINES])


def _is_source(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
