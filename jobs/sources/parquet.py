"""Tables in Parquet files with a column of images or texts (extra `batch`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from mass_serve.inputs.errors import CorruptInputError, InputError, InvalidTextError
from mass_serve.jobs.errors import InputsError
from mass_serve.jobs.sources.content import PASSED, Read
from mass_serve.jobs.sources.opening import Opened
from mass_serve.jobs.sources.values import Columns, found_in, group_in, id_in

if TYPE_CHECKING:
    import pyarrow.parquet as parquet

MISSING = "Parquet needs the package pyarrow: pip install 'mass-serve[batch]'"
_ROWS_AT_ONCE = 64


def import_pyarrow() -> Any:
    """Returns pyarrow with its readers of Parquet. Raises InputsError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputsError(MISSING) from error
    return pyarrow


def check_columns(file: BinaryIO, name: str, columns: Columns) -> None:
    """Looks at the columns of a file, before a job begins.

    Raises InputsError for one without the column of inputs, or with one of a type that holds none. A file
    that is broken is told of in its place.
    """
    pyarrow = import_pyarrow()
    try:
        schema = pyarrow.parquet.read_schema(file)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
        return
    options = {columns.group: "--group-column", columns.id: "--id-column", columns.input: "--column"}
    for wanted, option in ((name, option) for name, option in options.items() if name):
        if wanted not in schema.names:
            raise InputsError(
                f"{name} has no column {wanted!r}, but {', '.join(schema.names[:20])}: name one with {option}"
            )
        if schema.names.count(wanted) > 1:
            raise InputsError(f"{name} has several columns {wanted!r}: give each a name of its own")
    kind = schema.field(columns.input).type
    if not _fits(kind, columns.reads_texts):
        expected = "texts (string)" if columns.reads_texts else "images (binary), or paths of images (string)"
        raise InputsError(
            f"the column {columns.input!r} of {name} is of type {kind}, and {expected} are expected: name"
            " another with --column"
        )


def _fits(kind: Any, reads_texts: bool) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _fits(kind.value_type, reads_texts)
    if types.is_string(kind) or types.is_large_string(kind):
        return True
    if reads_texts:
        return False
    is_struct = types.is_struct(kind) and bool({"bytes", "path"} & {field.name for field in kind})
    return is_struct or types.is_binary(kind) or types.is_large_binary(kind)


def read_parquet(opened: Opened, start: int, columns: Columns) -> Iterator[Read]:
    """Yields the inputs from the row `start` on; of a group of rows before it the last one, as PASSED.

    Raises CorruptInputError behind the last input of a file that is cut off or broken.
    """
    pyarrow, row = import_pyarrow(), 0
    try:
        table = pyarrow.parquet.ParquetFile(opened.raw)
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if row + rows > start:
                yield from _read_group(table, group, row, start, opened, columns)
            elif rows:
                yield Read(row + rows - 1, PASSED)
            row += rows
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:  # the latter for names of columns
        raise CorruptInputError(f"The file is cut off, or no Parquet: {error}.") from error


def _read_group(
    table: parquet.ParquetFile, group: int, row: int, start: int, opened: Opened, columns: Columns
) -> Iterator[Read]:
    """Yields the inputs of a group of rows, of which the first is the row `row`."""
    name, total = opened.tree.shown(opened.path), table.metadata.num_rows
    wanted = [column for column in columns.names if column in table.schema_arrow.names]
    for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=wanted):
        for values in _values(batch):
            place, share = f"{name}:{row}", (row + 1) / total
            if row < start:
                yield Read(row, PASSED)
            elif isinstance(values, InputError):
                yield Read(row, values, place, share)
            else:
                found = found_in(values, columns, opened.read_beside)
                yield Read(row, found, id_in(values, columns) or place, share, group_in(values, columns))
            row += 1


def _values(batch: Any) -> Iterator[Mapping[str, object] | InputError]:
    """Yields the values of each row by their columns, or what is wrong with them."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError as error:
        # Whoever wrote a string did not look at its bytes; the other rows may be right.
        if batch.num_rows == 1:
            yield InvalidTextError(f"Its string is no UTF-8 at byte {error.start}: save it as that.")
            return
        for row in range(batch.num_rows):
            yield from _values(batch.slice(row, 1))
