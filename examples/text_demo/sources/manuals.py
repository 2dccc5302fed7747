"""Paragraphs of manual pages: translated ones by their language, and English ones by section."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from examples.from_packages.packages import fetch
from examples.text_demo.packages import DEVELOPERS_MANUALS, MANUALS, TRANSLATED
from examples.text_demo.texts import LONGEST, Text

SECTIONS = {
    "2": "system calls",
    "3": "functions",
    "4": "devices",
    "5": "file formats",
    "7": "overviews",
}
LEAST = 80  # characters of a paragraph
PARAGRAPHS = 12  # of a page, at most
_BREAK = re.compile(r"^[.'](?:[PLI]?P|SH|SS|TP|sp|RS|RE|nf|fi|TH|HP|in)\b.*$", re.MULTILINE)
_FONT = re.compile(r"^\.(?:[BIR]|[BIRS][BIRM])\s+(.*)$", re.MULTILINE)
_REQUEST = re.compile(r"^[.'].*$", re.MULTILINE)
_ESCAPE = re.compile(r"\\(?:f[A-Z]|f\[[^]]*\]|[&,/:%]|\*\[[^]]*\]|\([a-z]{2}|s[-+]?\d)")


def languages(raw: Path) -> Iterator[Text]:
    """Paragraphs in eight languages; all translations of a page are in one group."""
    for language, package in TRANSLATED.items():
        for path in sorted((fetch(package, raw) / "usr/share/man").glob("*/man?/*.gz")):
            yield from _paragraphs_of(path, language)


def sections(raw: Path) -> Iterator[Text]:
    """Paragraphs in English of five sections, a page in one group."""
    for package in (MANUALS, DEVELOPERS_MANUALS):
        for path in sorted((fetch(package, raw) / "usr/share/man").glob("man?/*.gz")):
            section = SECTIONS.get(path.parent.name.removeprefix("man"))
            if section is not None:
                yield from _paragraphs_of(path, section)


def paragraphs(page: str) -> Iterator[str]:
    """The longer paragraphs of running text in a page's source."""
    spoken = _FONT.sub(lambda found: found[1].replace('"', ""), _BREAK.sub("\n\n", page))
    plain = _ESCAPE.sub("", _REQUEST.sub("", spoken)).replace("\\-", "-").replace("\\", "")
    for paragraph in re.split(r"\n\s*\n", plain):
        text = " ".join(paragraph.split())
        if len(text) >= LEAST:
            yield text[: 2 * LONGEST]


def _paragraphs_of(path: Path, label: str) -> Iterator[Text]:
    try:
        page = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
    except FileNotFoundError:  # a link to a page of a package that is not here
        return
    for _, paragraph in zip(range(PARAGRAPHS), paragraphs(page), strict=False):
        yield Text(label, path.name, paragraph)
