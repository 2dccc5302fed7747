"""WordNet's glosses of nouns by the file that lexicographers wrote them in; from Debian."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from examples.from_packages.packages import fetch
from examples.text_demo.packages import WORDNET
from examples.text_demo.texts import Text

# The kinds of nouns, by the number of their file in lexnames(5WN).
NOUNS = (
    *("Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event"),
    *("feeling", "food", "group", "location", "motive", "object", "person", "phenomenon", "plant"),
    *("possession", "process", "quantity", "relation", "shape", "state", "substance", "time"),
)
FIRST_NOUNS = 3
KINDS = 12  # the largest of them
_HYPERNYM = re.compile(r" @i? (\d{8}) ")


def nouns(raw: Path) -> Iterator[Text]:
    """Glosses of the twelve largest kinds of nouns."""
    kinds = dict(enumerate(NOUNS, FIRST_NOUNS))
    return glosses(fetch(WORDNET, raw) / "usr/share/wordnet/data.noun", kinds)


def glosses(file: Path, kinds: dict[int, str]) -> Iterator[Text]:
    """Glosses without their examples; meanings under one more general meaning are in one group."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line[:8].isdigit()]
    counts = Counter(int(line.split(" ", 2)[1]) for line in lines)
    largest = {number for number, _ in counts.most_common(KINDS)}
    for line in lines:
        offset, number = line.split(" ", 2)[:2]
        if int(number) in largest:
            above = _HYPERNYM.search(line)
            gloss = line.rpartition(" | ")[2].split('; "')[0]
            yield Text(kinds[int(number)], above[1] if above else offset, gloss)
