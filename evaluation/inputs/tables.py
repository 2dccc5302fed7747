"""Files with a row for each input: JSON lines, or CSV and TSV with a line of column names."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from mass_serve.evaluation.errors import EvaluationDataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = {".jsonl", *DELIMITERS}


def table_rows(path: Path, needed: str, example: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yields every row of a file by its names of columns, and the line where it begins, from 1.

    One is in memory at a time. Raises EvaluationDataError, with file and line, for what is not written as the
    file's name says, and for a table without the column `needed`; `example` shows a row.
    """
    return _table(path, needed) if path.suffix.lower() in DELIMITERS else _json_lines(path, example)


def shown(value: object) -> str:
    """A value in a message, not too long."""
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _json_lines(path: Path, example: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yields the object of every line that is not blank, and the line's number."""
    for number, line in _lines(path):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise EvaluationDataError(f"{path}:{number}: is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise EvaluationDataError(
                    f"{path}:{number}: must be an object such as {example}, not {shown(row)}"
                )
            yield number, row


def _table(path: Path, needed: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yields every row behind the first, and the number of its first line."""
    reader = csv.reader(
        (line for _, line in _lines(path)), delimiter=DELIMITERS[path.suffix.lower()], strict=True
    )
    begins = 1
    try:
        columns = next(reader, [])
        if needed not in columns:
            raise EvaluationDataError(
                f"{path}:1: must name the columns, {needed} among them, and names {shown(columns)}"
            )
        begins = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise EvaluationDataError(
                    f"{path}:{begins}: has {len(cells)} columns, and line 1 names {len(columns)}"
                )
            if cells:
                yield begins, dict(zip(columns, cells, strict=True))
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
