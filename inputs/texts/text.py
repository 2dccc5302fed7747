"""What is classified as one text: a text, or two that belong together, such as a premise and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Text: TypeAlias = str | tuple[str, str]


def parts(text: Text) -> Sequence[str]:
    """Returns the one or two texts."""
    return (text,) if isinstance(text, str) else text


def num_characters(texts: Sequence[Text]) -> int:
    """Returns the characters of all of them."""
    return sum(len(part) for text in texts for part in parts(text))
