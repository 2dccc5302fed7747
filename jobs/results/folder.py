"""The folder of results: parts of so many inputs, each whole or not there, and a journal of the next.

    RESULTS/part-000000.jsonl   the rows of the first PART_INPUTS inputs, in the order of the inputs
    RESULTS/_job.sqlite         which inputs, which settings, and the answers of parts that are not whole yet

Answers are in the journal when `add` returns. A part is written of it, renamed into place, and noted as whole
in the transaction that drops its answers: wherever a process is killed in between, the next one writes the
same part again, from the same answers.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mass_serve.jobs.errors import ResultsError
from mass_serve.jobs.journal import JournalError, claim, open_journal
from mass_serve.jobs.results.forms import FORMS, Form, write
from mass_serve.jobs.results.rows import Row
from mass_serve.jobs.sources import Listing, Position, Tree
from mass_serve.model_store.errors import StoreLockedError
from mass_serve.model_store.storage.local import LocalFiles

# Inputs of a part: large enough for few files, small enough to have the first of them soon.
PART_INPUTS = 10_000
# Readers of folders of Parquet pass over what begins with an underscore.
JOURNAL = "_job.sqlite"
_PART = re.compile(rf"part-[0-9]{{6,}}\.({'|'.join(FORMS)})")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answered (
    input INTEGER PRIMARY KEY, source INTEGER, row INTEGER, failed INTEGER, lines TEXT
);
CREATE TABLE IF NOT EXISTS parts (
    part INTEGER PRIMARY KEY, inputs INTEGER, failed INTEGER, source INTEGER, row INTEGER
);
CREATE TABLE IF NOT EXISTS ended (once INTEGER PRIMARY KEY);
"""
_OF_PART = "input >= :first AND input < :first + :inputs"


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of one input."""

    at: Position
    rows: Sequence[Row]
    failed: bool
    bytes_read: int = 0  # of all sources, when the input is


@dataclass(frozen=True)
class Counts:
    """How many inputs have rows, and how many of these say what was wrong."""

    inputs: int
    failed: int


@dataclass(frozen=True)
class ResultFiles(Container[str]):
    """The paths of files that a job writes into a folder, whether or not they are there."""

    folder: Path

    def __contains__(self, path: object) -> bool:
        assert isinstance(path, str)
        place, name = os.path.split(path)
        is_named_so = name.startswith(JOURNAL) or _PART.fullmatch(name) is not None
        return is_named_so and os.path.realpath(place) == os.path.realpath(self.folder)


class ResultsFolder:
    """The rows of a job, kept so that it may be killed at any point. One thread uses it."""

    def __init__(
        self, folder: Path, form: Form, columns: Sequence[str], database: sqlite3.Connection
    ) -> None:
        self._folder, self._files = folder, LocalFiles(folder)
        self._form, self._columns, self._database = form, columns, database
        self._waiting: Counter[int] = Counter(number // PART_INPUTS for number in self.done)
        self._next = -(-self.start.number // PART_INPUTS)  # the part that is to be written
        self._write_whole_parts()

    @classmethod
    @contextmanager
    def opened(
        cls, folder: Path, form: Form, columns: Sequence[str], settings: Mapping[str, object]
    ) -> Iterator[Self]:
        """Begins a job in a folder, or goes on with it, and excludes every other.

        Raises ResultsError for the folder of another job, for one that another process works in, and for one
        that is not a job's.
        """
        with ExitStack() as stack:
            with _errors_told(folder):
                _check_place(folder)
                stack.enter_context(LocalFiles(folder).lock())
                database = open_journal(folder / JOURNAL)
                stack.callback(database.close)
                database.executescript(_SCHEMA)
                _free_without_answers(database)
                claim(database, settings)
                results = cls(folder, form, columns, database)
            yield results

    def listing(self, trees: Sequence[Tree], reads_texts: bool) -> tuple[Listing, int]:
        """The list of the job's files, which is in the journal, and how many others lie there.

        Raises InputsError for files that are not those that the job was begun with, and ResultsError.
        """
        listing = Listing(self._folder / JOURNAL, trees, reads_texts)
        with _errors_told(self._folder):
            return listing, listing.fill(self._database)

    @property
    def start(self) -> Position:
        """Where the first part that is not whole begins."""
        query = "SELECT part, inputs, source, row FROM parts ORDER BY part DESC LIMIT 1"
        last = self._database.execute(query).fetchone()
        return Position() if last is None else Position(last[0] * PART_INPUTS + last[1], *last[2:])

    @property
    def done(self) -> Collection[int]:
        """The numbers of the inputs behind `start` that are answered."""
        return {number for (number,) in self._database.execute("SELECT input FROM answered")}

    @property
    def has_ended(self) -> bool:
        """Tells whether every input has its rows in a part."""
        return self._database.execute("SELECT 1 FROM ended").fetchone() is not None and not self._waiting

    @property
    def counts(self) -> Counts:
        """Counts what is done so far."""
        whole = "SELECT COALESCE(SUM(inputs), 0), COALESCE(SUM(failed), 0) FROM parts"
        waiting = "SELECT COUNT(*), COALESCE(SUM(failed), 0) FROM answered"
        pairs = [self._database.execute(query).fetchone() for query in (whole, waiting)]
        return Counts(*(sum(column) for column in zip(*pairs, strict=True)))

    def add(self, results: Sequence[Result]) -> None:
        """Keeps the rows of inputs, all or none; writes the parts that are whole with them.

        Raises ResultsError where the folder cannot be written to, and so does `end`.
        """
        rows = [
            (one.at.number, one.at.source, one.at.row, one.failed, "\n".join(map(json.dumps, one.rows)))
            for one in results
        ]
        with _errors_told(self._folder):
            with self._database:
                self._database.executemany("INSERT INTO answered VALUES (?, ?, ?, ?, ?)", rows)
            self._waiting.update(one.at.number // PART_INPUTS for one in results)
            self._write_whole_parts()

    def end(self) -> None:
        """Writes the last part, after the last input."""
        with _errors_told(self._folder):
            with self._database:
                self._database.execute("INSERT OR IGNORE INTO ended VALUES (1)")
            for part in sorted(self._waiting):
                self._write(part)

    def _write_whole_parts(self) -> None:
        """Writes the parts that are whole, in their order: `start` is behind the last that is written."""
        while self._waiting[self._next] == PART_INPUTS:
            self._write(self._next)

    def _write(self, part: int) -> None:
        with self._files.writing(f"part-{part:06d}.{self._form}") as file:
            write(self._form, file, self._columns, self._lines(part))
        scope = {"first": part * PART_INPUTS, "inputs": PART_INPUTS, "part": part}
        with self._database:
            self._database.execute(
                "INSERT INTO parts SELECT :part, COUNT(*), SUM(failed), MAX(source),"
                f" (SELECT row + 1 FROM answered WHERE {_OF_PART} ORDER BY input DESC LIMIT 1)"
                f" FROM answered WHERE {_OF_PART}",
                scope,
            )
            self._database.execute(f"DELETE FROM answered WHERE {_OF_PART}", scope)
        del self._waiting[part]
        self._next = part + 1

    def _lines(self, part: int) -> Iterator[str]:
        """Yields the rows of a part in the order of its inputs, as they are in the journal."""
        scope = {"first": part * PART_INPUTS, "inputs": PART_INPUTS}
        query = f"SELECT lines FROM answered WHERE {_OF_PART} ORDER BY input"
        for (lines,) in self._database.execute(query, scope):
            yield from lines.split("\n")


def _free_without_answers(database: sqlite3.Connection) -> None:
    """Lets any job have the folder of one that has answered nothing: its command may have been mistaken."""
    done = "SELECT 1 FROM answered UNION ALL SELECT 1 FROM parts UNION ALL SELECT 1 FROM ended LIMIT 1"
    if database.execute(done).fetchone() is None:
        database.executescript("DELETE FROM settings; DROP TABLE IF EXISTS sources")


def _check_place(folder: Path) -> None:
    """Raises ResultsError for a folder with parts that no journal knows of."""
    if (folder / JOURNAL).exists() or not folder.exists():
        return
    if not folder.is_dir():
        raise ResultsError(f"{folder} is no folder: name one for the results, or a new one, with --out")
    if any(path.suffix.removeprefix(".") in FORMS for path in folder.glob("part-*")):
        raise ResultsError(f"{folder} has parts of results and no {JOURNAL}: name another with --out")


@contextmanager
def _errors_told(folder: Path) -> Iterator[None]:
    """Makes sentences of what can go wrong with a folder."""
    try:
        yield
    except JournalError as error:
        raise ResultsError(
            f"{folder} has the results of another job, {error}: name another with --out"
        ) from error
    except StoreLockedError as error:
        raise ResultsError(str(error)) from error
    except sqlite3.Error as error:
        raise _unwritable(folder, error) from error
    except OSError as error:
        raise _unwritable(folder, error.strerror or error) from error


def _unwritable(folder: Path, why: object) -> ResultsError:
    return ResultsError(
        f"{folder} cannot be written to: {why}; what is done is kept: make room, and give the same command"
        " again"
    )
