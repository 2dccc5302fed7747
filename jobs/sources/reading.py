"""The inputs of all sources, one after the other and always in the same order: what a job streams."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass

from mass_serve.inputs.errors import CorruptInputError, InputError
from mass_serve.jobs.sources.content import Found, Read, read_whole, text_of
from mass_serve.jobs.sources.json_lines import read_lines
from mass_serve.jobs.sources.kinds import Kind, kind_of
from mass_serve.jobs.sources.listing import Listing, Source
from mass_serve.jobs.sources.opening import BROKEN, Opened, opened
from mass_serve.jobs.sources.parquet import check_columns, read_parquet
from mass_serve.jobs.sources.tar_shards import read_tar
from mass_serve.jobs.sources.trees import tree_of
from mass_serve.jobs.sources.values import Columns


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the stream of inputs a job stands: before the input that has this number."""

    number: int = 0  # of the input, among all of the job
    source: int = 1  # of its source
    row: int = 0  # its place in that


@dataclass(frozen=True, slots=True)
class JobInput:
    """One input of a job, or what is wrong with it."""

    id: str
    found: Found
    at: Position
    bytes_read: int = 0  # of all sources, when it is
    group: str | None = None  # inputs with one that follow each other are of one task


def check_tables(listing: Listing, columns: Columns) -> None:
    """Looks at the first table of Parquet for its columns, so that a wrong name is told at once.

    Raises InputsError.
    """
    for source in listing.sources():
        if _kind(source, columns) == "parquet":
            try:
                with source.tree.open(source.path) as file:
                    check_columns(file, source.name, columns)
            except OSError:
                continue  # it is told of when it is read
            return


def inputs(
    listing: Listing, columns: Columns, start: Position, done: Collection[int] = ()
) -> Generator[JobInput, None, None]:
    """Yields the inputs from a position on, without those whose numbers are `done`.

    What cannot be read is one too: the file, or what is left of an archive or table behind its last input.
    """
    number = start.number
    for source in listing.sources(start.source):
        first = start.row if source.number == start.source else 0
        for read in _rows(source, first, columns):
            if number not in done:
                at = Position(number, source.number, read.row)
                bytes_read = source.before + int(read.share * source.size)
                name = read.id or source.name
                yield JobInput(name, read.found, at, bytes_read, _group(read, name, source, columns))
            number += 1


def _group(read: Read, name: str, source: Source, columns: Columns) -> str | None:
    """The group that an input is of: what a table's column says, or the folder of a file."""
    if columns.by_folder and _kind(source, columns) in ("whole", "tar"):
        return name.rpartition("/")[0]
    return read.group


def inputs_below(argument: str, columns: Columns) -> Iterator[JobInput]:
    """Yields the inputs of a file, folder, pattern or URL, the names of whose files are held in memory.

    Raises InputsError.
    """
    tree, number = tree_of(argument), 0
    files = (file for file in tree.files() if file.named or kind_of(file.path, columns.reads_texts))
    for place, file in enumerate(sorted(files, key=lambda file: file.path), start=1):
        source = Source(place, tree, file.path, file.size, before=0)
        for read in _rows(source, 0, columns):
            yield JobInput(read.id or source.name, read.found, Position(number, place, read.row))
            number += 1


def _rows(source: Source, start: int, columns: Columns) -> Iterator[Read]:
    """Yields the inputs of a source from the row `start` on, and at last why the rest cannot be read."""
    row = 0
    try:
        with opened(source.tree, source.path, source.size) as file:
            for read in _of_kind(_kind(source, columns), file, start, columns):
                row = read.row + 1
                if read.row >= start:
                    yield read
        return
    except InputError as error:
        problem = error
    except (OSError, *BROKEN) as error:
        problem = CorruptInputError(f"It cannot be read: {getattr(error, 'strerror', None) or error}.")
    if row >= start:
        yield Read(row, problem)


def _of_kind(kind: Kind, file: Opened, start: int, columns: Columns) -> Iterator[Read]:
    if kind == "lines":
        return read_lines(file, start, columns)
    if kind == "parquet":
        return read_parquet(file, start, columns)
    if kind == "tar":
        return read_tar(file, start, columns.reads_texts)
    return _whole(file, start, columns.reads_texts)


def _whole(file: Opened, start: int, reads_texts: bool) -> Iterator[Read]:
    if start == 0:
        data = read_whole(file.file)
        yield Read(0, text_of(data) if reads_texts else data)


def _kind(source: Source, columns: Columns) -> Kind:
    """How a source holds inputs; a file that the user has named is one, whatever its name ends in."""
    return kind_of(source.path, columns.reads_texts) or "whole"
