"""The list of files that a job reads, as a table on disk: a million of them take no memory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mass_serve.jobs.errors import InputsError
from mass_serve.jobs.sources.kinds import FORMS, TEXT_FORMS, kind_of
from mass_serve.jobs.sources.trees import Tree

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sources (
    id INTEGER PRIMARY KEY, tree INTEGER, path BLOB, size INTEGER, version TEXT, before INTEGER
);
CREATE TEMP TABLE scanned (tree INTEGER, path BLOB, size INTEGER, version TEXT);
"""
# A file that two arguments have is read once, as one of the first.
_FILL = """
INSERT INTO sources (tree, path, size, version, before)
SELECT tree, path, size, version, SUM(size) OVER (ORDER BY tree, path) - size
FROM (SELECT MIN(tree) AS tree, path, size, version FROM scanned GROUP BY path) ORDER BY tree, path
"""
_CHANGED = """
SELECT path FROM (SELECT path, version FROM scanned EXCEPT SELECT path, version FROM sources)
UNION ALL
SELECT path FROM (SELECT path, version FROM sources EXCEPT SELECT path, version FROM scanned) LIMIT 1
"""
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Source:
    """A file that inputs are read of."""

    number: int  # from 1, in the order in which they are read
    tree: Tree
    path: str
    size: int
    before: int  # bytes of all files that are read before it

    @property
    def name(self) -> str:
        """How it is called in results and messages."""
        return self.tree.shown(self.path)


@dataclass(frozen=True)
class Listing:
    """The files of a job, in a database that another connection may write to meanwhile."""

    database: Path
    trees: Sequence[Tree]
    reads_texts: bool

    def fill(self, connection: sqlite3.Connection) -> int:
        """Lists all files, or holds what is there against the list of an earlier run.

        Returns how many files in folders were left out, because they hold no inputs. Raises InputsError where
        there is none, where one that is named is no form of texts, and where one is not as it was.
        """
        connection.executescript(_SCHEMA)
        left_out = 0
        with connection:
            for number, tree in enumerate(self.trees):
                for file in tree.files():
                    if kind_of(file.path, self.reads_texts) is None:
                        if file.named and self.reads_texts:  # a .csv would be one long text
                            raise InputsError(
                                f"{tree.shown(file.path)} is none of what is read: {TEXT_FORMS}"
                            )
                        if not file.named:
                            left_out += 1
                            continue
                    row = (number, os.fsencode(file.path), file.size, file.version)
                    connection.execute("INSERT INTO scanned VALUES (?, ?, ?, ?)", row)
            self._compare(connection)
            connection.execute("DROP TABLE scanned")
        return left_out

    def _compare(self, connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT 1 FROM sources LIMIT 1").fetchone() is None:
            connection.execute(_FILL)
        if connection.execute("SELECT 1 FROM sources LIMIT 1").fetchone() is None:
            raise InputsError(f"there is nothing to read there: {FORMS} are expected")
        changed = connection.execute(_CHANGED).fetchone()
        if changed is not None:
            shown = os.fsencode(os.fsdecode(changed[0])).decode("utf-8", "backslashreplace")
            raise InputsError(
                f"the inputs are not those that the job was begun with ({shown} differs): put them back, or"
                " begin another with another --out"
            )

    def sources(self, first: int = 1) -> Iterator[Source]:
        """Yields the files from the number `first` on, on any thread."""
        with closing(sqlite3.connect(self.database)) as connection:
            last = first - 1
            while rows := connection.execute(
                "SELECT id, tree, path, size, before FROM sources WHERE id > ? ORDER BY id LIMIT ?",
                (last, _ROWS_AT_ONCE),
            ).fetchall():
                for last, tree, path, size, before in rows:
                    yield Source(last, self.trees[tree], os.fsdecode(path), size, before)

    @property
    def num_bytes(self) -> int:
        """The bytes of all files."""
        with closing(sqlite3.connect(self.database)) as connection:
            return int(connection.execute("SELECT SUM(size) FROM sources").fetchone()[0] or 0)
