"""Texts with labels, divided into those to learn from, to calibrate with and to measure on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from examples.from_packages.splits import Split, divide

# Of each task: how many of its texts a split takes at most.
LIMITS: Mapping[Split, int] = {"evaluation": 100, "tuning": 60, "training": 800}
LONGEST = 120  # characters of a text, about 30 tokens; what is longer is cut at a space
SHORTEST = 3  # letters
_SPACES = re.compile(r"\s+")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Text:
    """One labelled text. Texts of one group have one source, and are therefore in one split."""

    label: str
    group: str
    text: str


def excerpt(text: str) -> str:
    """The beginning of a text, with single spaces and no control characters."""
    plain = _SPACES.sub(" ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return plain if len(plain) <= LONGEST else plain[:LONGEST].rsplit(" ", 1)[0]


def write_task(out: Path, task: str, texts: Iterable[Text]) -> None:
    """Writes `out/<split>/<task>.jsonl`, all splits unless an earlier run wrote the last of them."""
    splits = divide(list(distinct(texts)), LIMITS)
    for split, chosen in splits.items():
        path = out / split / f"{task}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps({"text": each.text, "label": each.label}, ensure_ascii=False) for each in chosen)
        half = path.with_suffix(".half")
        half.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(half, path)


def distinct(texts: Iterable[Text]) -> Iterator[Text]:
    """Excerpts of the texts, without those that say the same letters as one before and those of no word."""
    seen: set[str] = set()
    for text in texts:
        said = "".join(_LETTER.findall(text.text)).lower()
        if len(said) >= SHORTEST and said not in seen:
            seen.add(said)
            yield Text(text.label, text.group, excerpt(text.text))
