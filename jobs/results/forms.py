"""The files that rows go into: lines of JSON, or Parquet (extra `batch`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Literal, get_args

from mass_serve.jobs.sources.parquet import import_pyarrow

Form = Literal["jsonl", "parquet"]
FORMS: tuple[Form, ...] = get_args(Form)
_ROWS_AT_ONCE = 1000


def check_form(form: Form) -> None:
    """Raises InputsError where files of a form cannot be written here."""
    if form == "parquet":
        import_pyarrow()


def write(form: Form, file: BinaryIO, columns: Sequence[str], lines: Iterable[str]) -> None:
    """Writes rows, each of which comes as a line of JSON, into a new file. Raises OSError."""
    if form == "parquet":
        _write_parquet(file, columns, lines)
    else:
        file.writelines(f"{line}\n".encode() for line in lines)


def _write_parquet(file: BinaryIO, columns: Sequence[str], lines: Iterable[str]) -> None:
    pyarrow = import_pyarrow()
    schema = _schema(pyarrow, columns)
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _chunks(map(json.loads, lines)):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _schema(pyarrow: Any, columns: Sequence[str]) -> Any:
    text, number = pyarrow.string(), pyarrow.float64()
    labelled = [("label", text), ("score", number)]
    placed = [*labelled, ("start", pyarrow.int64()), ("end", pyarrow.int64()), ("text", text)]
    types = {
        "score": number,
        "top": pyarrow.list_(pyarrow.struct(labelled)),
        "labels": pyarrow.list_(pyarrow.struct(labelled)),
        "familiarity": number,
        "unrouted": pyarrow.bool_(),
        "cut": pyarrow.int64(),
        "part": pyarrow.int64(),
        "entities": pyarrow.list_(pyarrow.struct(placed)),
        "embedding": pyarrow.list_(pyarrow.float32()),
    }
    return pyarrow.schema([(name, types.get(name, text)) for name in columns])


def _chunks(rows: Iterator[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    while chunk := list(islice(rows, _ROWS_AT_ONCE)):
        yield chunk
