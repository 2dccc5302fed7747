"""Files with a text, or a pair of two, a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs.row_labels import LABEL, check_label
from mass_serve.evaluation.inputs.tables import DELIMITERS, shown, table_rows
from mass_serve.inputs.texts import Text

TEXT, PAIR = "text", "text_pair"
_EXAMPLE = '{"text": "...", "label": "..."}'


@dataclass(frozen=True)
class Row:
    """One text of a file."""

    line: int  # where it begins, from 1
    text: Text
    content: dict[str, object]  # all that the row says


def read_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a file, one in memory at a time.

    Raises EvaluationDataError, with file and line, for a row without a text, and for what is not written as
    the file's name says.
    """
    for line, row in table_rows(path, TEXT, _EXAMPLE):
        text, pair = row.get(TEXT), row.get(PAIR)
        if pair == "" and path.suffix.lower() in DELIMITERS:
            pair = None  # a table has no other way to leave out the second text of a row
        for name, part in ((TEXT, text), (PAIR, "" if pair is None else pair)):
            if not isinstance(part, str):
                raise EvaluationDataError(f"{path}:{line}: {name!r} must be a text, and is {shown(part)}")
        check_label(row.get(LABEL), f"{path}:{line}")
        yield Row(line, str(text) if pair is None else (str(text), str(pair)), row)
