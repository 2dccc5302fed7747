"""The list of images as a table on disk, in an order that halves and interleaves the classes."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable
from dataclasses import dataclass

SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY, task TEXT, half INTEGER, target INTEGER, path TEXT, bytes INTEGER,
    modified INTEGER
);
CREATE INDEX IF NOT EXISTS images_of_task ON images (task, half, id);
CREATE TABLE IF NOT EXISTS answers (
    method TEXT, image INTEGER, right INTEGER, score REAL,
    answered TEXT, routed_to TEXT, coefficient REAL, survived INTEGER, set_size INTEGER,
    passes REAL, familiarity REAL,
    PRIMARY KEY (method, image)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS searches (
    method TEXT, half INTEGER, coefficient REAL, task TEXT, right INTEGER, images INTEGER,
    PRIMARY KEY (method, half, coefficient, task)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (content TEXT);
CREATE TEMP TABLE scanned (task TEXT, target INTEGER, path TEXT, bytes INTEGER, modified INTEGER);
"""
# Halves alternate along the files of a class. The first images of a half are of as many classes as there are,
# because coefficients are searched on those alone.
FILL = """
INSERT INTO images (task, half, target, path, bytes, modified)
SELECT task, half, target, path, bytes, modified FROM (
    SELECT *,
        (ROW_NUMBER() OVER (PARTITION BY task ORDER BY target, path) - 1) % 2 AS half,
        ROW_NUMBER() OVER (PARTITION BY task, target ORDER BY path) AS place
    FROM scanned
) ORDER BY task, half, place, target
"""
FILE = "task, target, path, bytes, modified"
CHANGED = f"""
SELECT path FROM (SELECT {FILE} FROM scanned EXCEPT SELECT {FILE} FROM images)
UNION ALL
SELECT path FROM (SELECT {FILE} FROM images EXCEPT SELECT {FILE} FROM scanned) LIMIT 1
"""
HALVES = (0, 1)


@dataclass(frozen=True)
class Selection:
    """Which of one task's images are wanted."""

    task: str
    half: int
    unanswered_by: str = ""  # leaves out the images that this method has answered
    limit: int = sys.maxsize  # the first so many


def index_files(database: sqlite3.Connection, files: Iterable[tuple[str, int, str, int, int]]) -> str | None:
    """Fills the table of images, or holds the files against the table that is there.

    A file is (task, class, path, bytes, modification time). Returns the path of a file that differs from
    what an earlier run found, None where none does.
    """
    database.executescript(SCHEMA)
    with database:
        database.executemany("INSERT INTO scanned VALUES (?, ?, ?, ?, ?)", files)
        if database.execute("SELECT 1 FROM images LIMIT 1").fetchone() is None:
            database.execute(FILL)
        changed: tuple[str] | None = database.execute(CHANGED).fetchone()
        database.execute("DROP TABLE scanned")
    return None if changed is None else changed[0]


def next_images(
    database: sqlite3.Connection, selection: Selection, after: int, count: int
) -> list[tuple[int, int, str]]:
    """Returns (id, class, path) of the next `count` of the selected images behind the id `after`."""
    return database.execute(
        "SELECT id, target, path FROM images WHERE task = ? AND half = ? AND id > ? AND NOT EXISTS"
        " (SELECT 1 FROM answers WHERE method = ? AND image = images.id) ORDER BY id LIMIT ?",
        (selection.task, selection.half, after, selection.unanswered_by, count),
    ).fetchall()
