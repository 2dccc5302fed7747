"""YAML as a recipe may use it: plain values, of which the line is known; nothing that could become large.

Tags, keys that are no text and keys that are there twice are refused. Aliases are read, as long as what they
stand for stays small: nine lines of them could otherwise say a billion values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mass_serve.model_store.errors import RecipeError
from mass_serve.model_store.storage.regular_files import RegularFile

_MOST_BYTES = 1 << 20
_MOST_VALUES = 100_000
_MOST_DEPTH = 20
_CORE = "tag:yaml.org,2002:"
# What is written like a date is a text: no key is of dates.
_TEXTS = (f"{_CORE}str", f"{_CORE}timestamp")
_PLAIN = tuple(f"{_CORE}{kind}" for kind in ("int", "float", "bool", "null"))

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
        key = ".".join(map(str, steps))
        return f"{self.path}, line {self.lines[known]}" + (f", {key}" if key else "")


def read_document(path: Path) -> Document:
    """Reads a YAML file. Raises RecipeError, with the line of what cannot be read."""
    try:
        with RegularFile.open(path) as file:
            if file.size > _MOST_BYTES:
                raise RecipeError(
                    f"{path} has {file.size:,} bytes, and no recipe needs more than {_MOST_BYTES:,}"
                )
            text = file.read(0, file.size).decode()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
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


def _at(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return "" if mark is None else f", line {mark.line + 1}"


class _Reading:
    """Makes values of a document's nodes, each as often as it is referred to."""

    def __init__(self, path: Path) -> None:
        self.lines: dict[tuple[Step, ...], int] = {}
        self._path = path
        self._plain = yaml.constructor.SafeConstructor()

    def value(self, node: Any, steps: tuple[Step, ...]) -> Any:
        line = node.start_mark.line + 1
        if len(steps) > _MOST_DEPTH:
            raise self._refused(line, f"values are nested deeper than {_MOST_DEPTH} levels")
        if len(self.lines) >= _MOST_VALUES:
            raise self._refused(line, f"its aliases stand for more than {_MOST_VALUES:,} values")
        self.lines.setdefault(steps, line)
        if node.tag == f"{_CORE}map":
            return self._mapping(node, steps)
        if node.tag == f"{_CORE}seq":
            return [self.value(one, (*steps, place)) for place, one in enumerate(node.value)]
        if node.tag in _TEXTS:
            return node.value
        if node.tag not in _PLAIN:
            raise self._refused(
                line, f"the tag {node.tag} is not read: a recipe has texts, numbers and lists"
            )
        return self._number(node, line)

    def _number(self, node: Any, line: int) -> Any:
        try:
            return self._plain.construct_object(node)
        except ValueError as error:
            raise self._refused(line, str(error)) from error

    def _mapping(self, node: Any, steps: tuple[Step, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag != f"{_CORE}str":
                raise self._refused(line, f"a key must be a text, found {str(key.value)[:40]!r}")
            if key.value in found:
                raise self._refused(line, f"the key {key.value} is there twice")
            self.lines[(*steps, key.value)] = line
            found[key.value] = self.value(value, (*steps, key.value))
        return found

    def _refused(self, line: int, text: str) -> RecipeError:
        return RecipeError(f"{self._path}, line {line}: {text}")
