"""YAML as a recipe may use it: plain values, of which the line is known; nothing that could become large.

Tags, keys that are no text and keys that are there twice are refused. Aliases are read, as long as what they
stand for stays small: nine lines of them could otherwise say a billion values. Dates and numbers to the base
60, such as `1:30`, are texts, as in YAML 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mass_serve.model_store.errors import RecipeError
from mass_serve.model_store.storage.regular_files import RegularFile

# PyYAML needs up to 25 seconds for a megabyte of short values.
_MOST_BYTES = 128 << 10
_MOST_VALUES = 100_000
_MOST_CHARACTERS = 1 << 20
_MOST_DEPTH = 20
_MOST_DIGITS = 64
_CORE = "tag:yaml.org,2002:"
_TEXT = f"{_CORE}str"
_NUMBERS = (f"{_CORE}int", f"{_CORE}float")
_PLAIN = (*_NUMBERS, f"{_CORE}bool", f"{_CORE}null")
# YAML can escape them, and neither a path nor UTF-8 has them.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

Step = str | int


@dataclass(frozen=True)
class Document:
    """The content of a YAML file, and the line of every value in it."""

    path: Path
    content: Any
    lines: dict[tuple[Step, ...], int] = field(repr=False)

    def where(self, steps: Sequence[Step]) -> str:
        """Names the file, the line and the key of a value; of the value around it where it is missing."""
        known = tuple(steps)
        while known not in self.lines:
            known = known[:-1]
        return _place(self.path, self.lines[known], steps)


def read_document(path: Path) -> Document:
    """Reads a YAML file. Raises RecipeError, with the line of what cannot be read."""
    try:
        with RegularFile.open(path) as file:
            if file.size > _MOST_BYTES:
                raise RecipeError(
                    f"{path} has {file.size:,} bytes, and no recipe needs more than {_MOST_BYTES:,}"
                )
            text = file.read(0, file.size).decode()
        node = _composed(path, text)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: byte {error.start} is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        raise RecipeError(f"{path}{_at(error)}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise RecipeError(f"{path} is nested deeper than {_MOST_DEPTH} levels") from error
    if node is None:
        raise RecipeError(f"{path} is empty: a recipe names a pretrained model and its tasks")
    reading = _Reading(path)
    return Document(path, reading.value(node, ()), reading.lines)


def _composed(path: Path, text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:  # an escape beyond the last character of Unicode
        raise RecipeError(
            f"{_place(path, loader.line + 1, ())}: a text has a character that does not exist: {error}"
        ) from error


def _place(path: Path, line: int, steps: Sequence[Step]) -> str:
    key = _shown(".".join(map(str, steps)))
    return f"{path}, line {line}" + (f", {key}" if key else "")


def _shown(text: str) -> str:
    """Writes what a file holds as a short part of one line, whatever it holds."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:80])


def _at(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return "" if mark is None else f", line {mark.line + 1}"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Composes nodes, and keeps which of them have a tag that is written there."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Composes a node; one with a tag gets the attribute `written_tag`."""
        tag = getattr(self.peek_event(), "tag", None)
        node = super().compose_node(parent, index)
        if tag is not None:
            node.written_tag = tag
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """Returns the tag of a node that has none; what is written like a date or a time is a text."""
        tag = str(super().resolve(kind, value, implicit))
        is_time = tag == f"{_CORE}timestamp" or (tag in _NUMBERS and ":" in value)
        return _TEXT if is_time else tag


class _Reading:
    """Makes values of a document's nodes, each as often as it is referred to."""

    def __init__(self, path: Path) -> None:
        self.lines: dict[tuple[Step, ...], int] = {}
        self._path = path
        self._plain = yaml.constructor.SafeConstructor()
        self._characters = 0

    def value(self, node: Any, steps: tuple[Step, ...]) -> Any:
        line = node.start_mark.line + 1
        if len(steps) > _MOST_DEPTH:
            raise self._refused(node, (), f"values are nested deeper than {_MOST_DEPTH} levels")
        if len(self.lines) >= _MOST_VALUES:
            raise self._refused(node, (), f"its aliases stand for more than {_MOST_VALUES:,} values")
        self.lines.setdefault(steps, line)
        self._check_untagged(node, steps)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, steps)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(one, (*steps, place)) for place, one in enumerate(node.value)]
        return self._plain_value(node, steps) if node.tag in _PLAIN else self._text(node, steps)

    def _check_untagged(self, node: Any, steps: tuple[Step, ...]) -> None:
        if (tag := getattr(node, "written_tag", None)) is not None:
            raise self._refused(
                node, steps, f"the tag {_shown(tag)} is not read: a recipe has texts, numbers and lists"
            )

    def _plain_value(self, node: Any, steps: tuple[Step, ...]) -> Any:
        if len(node.value) > _MOST_DIGITS:
            raise self._refused(
                node,
                steps,
                f"a number has {len(node.value):,} characters, and no recipe needs more than {_MOST_DIGITS};"
                " quote it if it is a text",
            )
        try:
            return self._plain.construct_object(node)
        except ValueError as error:
            raise self._refused(node, steps, str(error)) from error

    def _text(self, node: Any, steps: tuple[Step, ...]) -> str:
        text = str(node.value)
        if found := _NO_TEXT.search(text):
            raise self._refused(node, steps, f"a text may not have the character {found[0]!a}")
        self._characters += len(text)
        if self._characters > _MOST_CHARACTERS:
            raise self._refused(
                node, (), f"its aliases stand for more than {_MOST_CHARACTERS:,} characters of text"
            )
        return text

    def _mapping(self, node: Any, steps: tuple[Step, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            self._check_untagged(key, steps)
            if key.tag != _TEXT:
                raise self._refused(key, (), f"a key must be a text, found {str(key.value)[:40]!r}")
            name = self._text(key, steps)
            if name in found:
                raise self._refused(key, (), f"the key {_shown(name)} is there twice")
            self.lines[(*steps, name)] = key.start_mark.line + 1
            found[name] = self.value(value, (*steps, name))
        return found

    def _refused(self, node: Any, steps: Sequence[Step], text: str) -> RecipeError:
        return RecipeError(f"{_place(self._path, node.start_mark.line + 1, steps)}: {text}")
