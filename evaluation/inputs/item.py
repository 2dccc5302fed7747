"""One input as it lies in a folder, before it is read."""

from __future__ import annotations

from dataclasses import dataclass

from mass_serve.inputs.texts import Text

# What is right of an input: rows of its task's head, ascending. Of a task that gives one label it is one.
Target = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """An image's file, or a text."""

    place: str  # the path of the file below the folder; of a text in a file of many, `:` and its line too
    version: str = ""  # of a file that is read later: what tells whether it is still the same
    text: Text | None = None  # a text or a pair of two, which was read with the others of its file


@dataclass(frozen=True)
class Labelled:
    """An item whose task and labels are known."""

    task: str
    target: Target
    item: Item
