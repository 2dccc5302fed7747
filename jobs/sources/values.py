"""What a value in a row of a table stands for: a text, the bytes of an image, or the path of a file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mass_serve.inputs.errors import CorruptInputError, InputError, InvalidTextError
from mass_serve.jobs.sources.content import Content, Found

TEXT, PAIR, IMAGE = "text", "text_pair", "image"
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Columns:
    """Names the columns of tables that are read."""

    reads_texts: bool
    input: str  # of the images or texts
    id: str | None = None  # of what results call them by; None: their place
    group: str | None = None  # of the group that they are of; None: no column says that
    by_folder: bool = False  # files of one folder are a group

    @property
    def names(self) -> list[str]:
        """Those that are looked for; the second texts of pairs need not be there."""
        return [self.input, *([PAIR] if self.reads_texts else []), *filter(None, (self.id, self.group))]


def found_in(row: Mapping[str, object], columns: Columns, read_file: Callable[[str], bytes]) -> Found:
    """Returns the input of a row, or what is wrong with it; `read_file` reads what a path names."""
    if columns.input not in row:
        return InvalidTextError(f"The row has no {columns.input!r}; name its column with --column.")
    try:
        value = row[columns.input]
        return _text(value, row.get(PAIR)) if columns.reads_texts else _image(value, read_file)
    except InputError as error:
        return error
    except (OSError, ValueError) as error:  # the latter for what can be no path: a NUL, half of a pair
        why = getattr(error, "strerror", None) or error
        return CorruptInputError(f"{_shown(value)} cannot be read: {why}.")


def id_in(row: Mapping[str, object], columns: Columns) -> str | None:
    """Returns what a row calls its input; None where it has no name for it."""
    return _told(row, columns.id)


def group_in(row: Mapping[str, object], columns: Columns) -> str | None:
    """Returns the group that a row's input is of; None where it is by itself."""
    return _told(row, columns.group)


def _told(row: Mapping[str, object], column: str | None) -> str | None:
    value = None if column is None else row.get(column)
    # Half of a surrogate pair is written as an escape, for Parquet and strict readers of JSON have no other.
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def _text(value: object, second: object) -> Content:
    for part in (value, second):
        if not isinstance(part, str) and (part is value or part is not None):
            raise InvalidTextError(f"A text is expected, and it is {_shown(part)}.")
    assert isinstance(value, str)
    return (value, second) if isinstance(second, str) else value


def _image(value: object, read_file: Callable[[str], bytes]) -> bytes:
    """Returns the bytes of an image: of a value that is them, an object that has them, or a path."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        # As Hugging Face's data sets have images in Parquet; and as the server takes them in JSON.
        if isinstance(value.get("bytes"), bytes):
            return bytes(value["bytes"])
        if isinstance(value.get("b64"), str):
            return _from_base64(value["b64"])
        value = value.get("path")
    if not isinstance(value, str) or not value:
        raise CorruptInputError(f"The bytes or the path of an image are expected, and it is {_shown(value)}.")
    return read_file(value)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CorruptInputError("The image is no valid base64; encode its file anew.") from error


def _shown(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
