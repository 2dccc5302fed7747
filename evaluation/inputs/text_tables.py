"""Files with a text, or a pair of two, a row: JSON lines, or CSV and TSV with a line of column names."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.inputs.texts import Text

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = {".jsonl", *DELIMITERS}
TEXT, LABEL, PAIR = "text", "label", "text_pair"
_SHOWN = 20  # labels in a message


@dataclass(frozen=True)
class Row:
    """One text of a file."""

    line: int  # where it begins, from 1
    text: Text
    label: str | int | None  # a class's name or number; None where the row has none


def read_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a file, one in memory at a time.

    Raises EvaluationDataError, with file and line, for a row without a text, and for what is not written as
    the file's name says.
    """
    rows = _table(path) if path.suffix.lower() in DELIMITERS else _json_lines(path)
    for line, row in rows:
        text, pair, label = row.get(TEXT), row.get(PAIR), row.get(LABEL)
        for name, part in ((TEXT, text), (PAIR, "" if pair is None else pair)):
            if not isinstance(part, str):
                raise EvaluationDataError(f"{path}:{line}: {name!r} must be a text, and is {_shown(part)}")
        if label is not None and (isinstance(label, bool) or not isinstance(label, str | int)):
            raise EvaluationDataError(
                f"{path}:{line}: {LABEL!r} must be the name of a class or its number, not {_shown(label)}"
            )
        yield Row(line, str(text) if pair is None else (str(text), str(pair)), label)


def class_of(row: Row, path: Path, labels: Sequence[str]) -> int:
    """The class, a row of the head, of a label: its name or, where no class is so named, its number from 0.

    Raises EvaluationDataError, with file and line, for one that is neither.
    """
    name = str(row.label)
    if row.label is not None and name in labels:
        return labels.index(name)
    if name.isascii() and name.isdecimal() and int(name) < len(labels):
        return int(name)
    found = "no label" if row.label is None else f"the label {row.label!r}"
    shown = ", ".join(labels[:_SHOWN]) + (f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else "")
    raise EvaluationDataError(
        f"{path}:{row.line}: has {found}; {path.stem} has {shown}, or the number of one, 0 to"
        f" {len(labels) - 1}"
    )


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yields the object of every line that is not blank, and the line's number."""
    for number, line in _lines(path):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise EvaluationDataError(f"{path}:{number}: is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise EvaluationDataError(
                    f'{path}:{number}: must be an object such as {{"text": "...", "label": "..."}},'
                    f" not {_shown(row)}"
                )
            yield number, row


def _table(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yields every row behind the first, by its names of columns, and the number of its first line."""
    reader = csv.reader(
        (line for _, line in _lines(path)), delimiter=DELIMITERS[path.suffix.lower()], strict=True
    )
    begins = 1
    try:
        columns = next(reader, [])
        if TEXT not in columns:
            raise EvaluationDataError(
                f"{path}:1: must name the columns, {TEXT} and {LABEL} among them, and names {_shown(columns)}"
            )
        begins = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise EvaluationDataError(
                    f"{path}:{begins}: has {len(cells)} columns, and line 1 names {len(columns)}"
                )
            if cells:
                row: dict[str, object] = dict(zip(columns, cells, strict=True))
                # A table has no other way to leave out the second text of a row.
                if row.get(PAIR) == "":
                    del row[PAIR]
                yield begins, row
            begins = reader.line_num + 1
    except csv.Error as error:
        raise EvaluationDataError(f"{path}:{begins}: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines, their ends kept, with their numbers from 1."""
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise EvaluationDataError(f"{path}:{number}: is no UTF-8: save the file as that") from error
    except OSError as error:
        raise EvaluationDataError(f"{path}: {error.strerror}") from error


def _shown(value: object) -> str:
    """A value in a message, not too long."""
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
