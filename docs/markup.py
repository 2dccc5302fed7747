"""Tables and cells in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars and line breaks in cells are kept from ending them."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return plain(" ".join(text.split())).replace("|", "\\|")


def plain(text: str) -> str:
    """Text of the program's, in which nothing but what stands in backticks is Markdown or HTML."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def code(value: object) -> str:
    """Something as code; nothing for nothing."""
    return f"`{value}`" if str(value) else ""
