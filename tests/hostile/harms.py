"""Ways to harm a folder that somebody will open, by name, and what is held of each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.opening import Ending

UNHARMED = "unharmed"
# Far less than a hostile file asks for, far more than a tiny model takes.
MOST_BYTES = 400 << 20
MOST_SECONDS = 20.0
MOST_CHARACTERS = 2100

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Harm:
    """One way to harm a folder."""

    change: Change
    sentence: str  # a pattern of what is said of it


class Harms(dict[str, Harm]):
    """Holds the ways to harm one kind of folder."""

    def harm(self, sentence: str) -> Callable[[Change], Change]:
        """Registers a function by its name."""

        def register(change: Change) -> Change:
            self[change.__name__] = Harm(change, sentence)
            return change

        return register

    def copies(self, source: Path, root: Path) -> dict[str, Path]:
        """Copies a folder once for each harm, which is done to the copy, and once unharmed."""
        made = {name: shutil.copytree(source, root / name) for name in (UNHARMED, *self)}
        for name, harm in self.items():
            harm.change(made[name])
        return made


def tensor_file(header: str, data: bytes = b"") -> bytes:
    """Writes a safetensors file with any header."""
    return len(header.encode()).to_bytes(8, "little") + header.encode() + data


def assert_that_it_says(text: str, harm: Harm) -> None:
    """Holds an error to the words that are expected of it."""
    assert re.search(harm.sentence, text), text


def assert_one_sentence(ending: Ending, kind: str, harm: Harm) -> None:
    """Holds an ending to its kind, to one printable sentence, and to the bounds of time and memory."""
    assert ending.kind == kind, ending
    assert ending.text.isprintable(), "one line, without a terminal's control characters"
    assert len(ending.text) < MOST_CHARACTERS
    assert_that_it_says(ending.text, harm)
    assert ending.grown_bytes < MOST_BYTES
    assert ending.seconds < MOST_SECONDS
