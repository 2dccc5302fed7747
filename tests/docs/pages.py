"""What the tests of the documentation read: the README, the pages of docs/ and those that they show."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PATHS = (
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docker" / "README.md",
    ROOT / "docker" / "monitoring.md",
)
TEXTS = {path: path.read_text(encoding="utf-8") for path in PATHS}
EVERYTHING = "\n".join(TEXTS.values())
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def named(path: Path) -> str:
    """A page's path within the repository, for messages."""
    return str(path.relative_to(ROOT))


def blocks(language: str, text: str = EVERYTHING) -> list[str]:
    """The code blocks in a language."""
    return [body for of, body in _BLOCK.findall(text) if of == language]


def without_blocks(text: str) -> str:
    """A page's prose: what stands in code blocks is neither a heading nor a link."""
    return _BLOCK.sub("", text)


def commands(text: str = EVERYTHING) -> list[str]:
    """Every line of the shell's code blocks, continued lines joined."""
    return [line for block in blocks("sh", text) for line in block.replace("\\\n", " ").splitlines()]


def tables(text: str) -> list[str]:
    """The Markdown tables of a page."""
    return re.findall(r"(?:^\|.*\n)+", without_blocks(text), flags=re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Where a link into a page can point: its headings."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(text: str, anchor: str) -> str:
    """A heading's part of a page, with the parts below it."""
    for found in re.finditer(r"^(#+) (.+)$", text, flags=re.MULTILINE):
        if anchors(found[0]) == {anchor}:
            end = re.search(rf"^#{{1,{len(found[1])}}} ", text[found.end() :], flags=re.MULTILINE)
            return text[found.end() :][: end.start() if end else None]
    raise KeyError(anchor)
