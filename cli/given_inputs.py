"""What a user names to `mass-serve classify`, one after the other: files, folders, texts, and lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mass_serve.inputs.errors import CorruptInputError, EmptyInputError, InputError, InvalidTextError
from mass_serve.inputs.texts import Text, parts
from mass_serve.jobs.sources.content import Found
from mass_serve.jobs.sources.reading import JobInput, Position, inputs_below
from mass_serve.jobs.sources.values import Columns
from mass_serve.server.protocols.text_items import FIRST, SECOND, read_text

if TYPE_CHECKING:
    from mass_serve.jobs import Stream

STANDARD_INPUT = Path("-")
# Between the two texts of a pair, in a line of output.
PAIRED = " | "

Named = tuple[str, Found]  # what an input is called, and what it is


@dataclass(frozen=True)
class GivenInputs:
    """All that was given, in the order in which it is answered."""

    columns: Columns
    texts: Sequence[Text] = ()
    files: Sequence[Path] = ()  # and folders
    lines: Sequence[Path] = ()  # files with a text on each line

    def stream(self) -> Stream:
        """Yields the inputs, each read when it is wanted."""
        for number, (name, found) in enumerate(self._named()):
            folder = str(Path(name).parent) if self.columns.by_folder else None
            yield JobInput(name, found, Position(number), group=folder)

    def described(self, one: JobInput) -> dict[str, str | None]:
        """What JSON says of an input: where it is from, and of a text what it is."""
        if isinstance(one.found, bytes | InputError):
            return {"image": one.id}
        texts = dict(zip((FIRST, SECOND), parts(one.found), strict=False))
        return texts | {"source": None if self.is_option(one) else one.id}

    def is_option(self, one: JobInput) -> bool:
        """Tells whether an input was given as --text."""
        return one.at.number < len(self.texts)

    def _named(self) -> Iterator[Named]:
        for text in self.texts:
            yield PAIRED.join(map(on_one_line, parts(text))), text
        for path in self.files:
            if path.is_dir():
                yield from self._below(path)
            else:
                yield str(path), self._whole(path)
        for path in self.lines:
            yield from _lines(path)

    def _below(self, folder: Path) -> Iterator[Named]:
        is_empty = True
        for one in inputs_below(str(folder), self.columns):
            is_empty = False
            yield one.id, one.found
        if is_empty:
            noun = "texts" if self.columns.reads_texts else "images"
            yield str(folder), EmptyInputError(f"the folder holds no {noun}")

    def _whole(self, path: Path) -> Found:
        """Reads a file that is one image, or one text."""
        try:
            with _opened(path, standard_input=self.columns.reads_texts) as file:
                data = file.read()
            return _text(data, is_first=True).replace("\r\n", "\n") if self.columns.reads_texts else data
        except OSError as error:
            return CorruptInputError(error.strerror)
        except InputError as error:
            return error


def on_one_line(text: str) -> str:
    """Returns a text without line ends and tabs, which would end its place in a line of output."""
    return " ".join(text.split())


def printable(name: str) -> str:
    """Returns a name, in which whoever named a file may have put anything, for a terminal's one line."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in name)


def _lines(path: Path) -> Iterator[Named]:
    """Yields the texts of a file's lines, and why the rest of it cannot be read.

    Lines of nothing but blanks are no texts. Those of a .jsonl file are a text or a pair in JSON.
    """
    is_json = path.suffix == ".jsonl"
    try:
        with _opened(path, standard_input=True) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", _line(line, is_first=number == 1, is_json=is_json)
    except OSError as error:
        yield str(path), CorruptInputError(error.strerror)


def _line(line: bytes, *, is_first: bool, is_json: bool) -> Found:
    try:
        text = _text(line, is_first=is_first).rstrip("\r\n")
        return _text_of_json(text) if is_json else text
    except InputError as error:
        return error
    except ValueError as error:
        return InvalidTextError(str(error))


def _opened(path: Path, *, standard_input: bool) -> AbstractContextManager[BinaryIO]:
    if standard_input and path == STANDARD_INPUT:
        return nullcontext(sys.stdin.buffer)
    return path.open("rb")


def _text(data: bytes, *, is_first: bool) -> str:
    """Returns the text of bytes; of the first of a file without a mark of the order of bytes."""
    try:
        return data.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTextError(
            "this is no text in UTF-8; the store reads texts: give --text or text files"
        ) from error


def _text_of_json(text: str) -> Text:
    """Returns the text or pair of a line in JSON, as the server takes one. Raises ValueError."""
    try:
        return read_text(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"a line of a .jsonl file must be a text or a pair in JSON ({error})") from error
