"""The list of inputs as a table on disk, in an order that halves and interleaves the classes."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from mass_serve.evaluation.inputs import Item, Labelled, Target
from mass_serve.inputs.texts import Text

SCHEMA = """
CREATE TABLE IF NOT EXISTS inputs (
    id INTEGER PRIMARY KEY, task TEXT, half INTEGER, target INTEGER, place TEXT, version TEXT, text TEXT
);
CREATE INDEX IF NOT EXISTS inputs_of_task ON inputs (task, half, id);
CREATE TABLE IF NOT EXISTS answers (
    method TEXT, input INTEGER, right INTEGER, score REAL,
    answered TEXT, routed_to TEXT, coefficient REAL, survived INTEGER, set_size INTEGER,
    passes REAL, familiarity REAL, right_of_two INTEGER,
    hits INTEGER, given INTEGER, wanted INTEGER,
    PRIMARY KEY (method, input)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS searches (
    method TEXT, half INTEGER, coefficient REAL, task TEXT, right INTEGER, inputs INTEGER,
    PRIMARY KEY (method, half, coefficient, task)
) WITHOUT ROWID;
CREATE TEMP TABLE scanned (task TEXT, target INTEGER, place TEXT, version TEXT, text TEXT);
"""
# Halves alternate along the inputs of a class. The first inputs of a half are of as many classes as there
# are, because coefficients are searched on those alone.
FILL = """
INSERT INTO inputs (task, half, target, place, version, text)
SELECT task, half, target, place, version, text FROM (
    SELECT *,
        (ROW_NUMBER() OVER (PARTITION BY task ORDER BY target, place) - 1) % 2 AS half,
        ROW_NUMBER() OVER (PARTITION BY task, target ORDER BY place) AS turn
    FROM scanned
) ORDER BY task, half, turn, target
"""
ITEM = "task, target, place, version, text"
CHANGED = f"""
SELECT place FROM (SELECT {ITEM} FROM scanned EXCEPT SELECT {ITEM} FROM inputs)
UNION ALL
SELECT place FROM (SELECT {ITEM} FROM inputs EXCEPT SELECT {ITEM} FROM scanned) LIMIT 1
"""
HALVES = (0, 1)


@dataclass(frozen=True)
class Selection:
    """Which of one task's inputs are wanted."""

    task: str
    half: int
    unanswered_by: str = ""  # leaves out the inputs that this method has answered
    limit: int = sys.maxsize  # the first so many


def index_inputs(database: sqlite3.Connection, found: Iterable[Labelled]) -> str | None:
    """Fills the table of inputs, or holds what was found against the table that is there.

    Returns the place of an input that differs from what an earlier run found, None where none does.
    """
    database.executescript(SCHEMA)
    database.execute("SELECT wanted FROM answers LIMIT 0")  # fails for a journal of an earlier version
    with database:
        database.executemany("INSERT INTO scanned VALUES (?, ?, ?, ?, ?)", map(_row, found))
        if database.execute("SELECT 1 FROM inputs LIMIT 1").fetchone() is None:
            database.execute(FILL)
        changed: tuple[str] | None = database.execute(CHANGED).fetchone()
        database.execute("DROP TABLE scanned")
    return None if changed is None else changed[0]


def next_inputs(
    database: sqlite3.Connection, selection: Selection, after: int, count: int
) -> list[tuple[int, Target, Item]]:
    """Returns (id, target, item) of the next `count` of the selected inputs behind the id `after`."""
    rows = database.execute(
        "SELECT id, target, place, version, text FROM inputs WHERE task = ? AND half = ? AND id > ?"
        " AND NOT EXISTS (SELECT 1 FROM answers WHERE method = ? AND input = inputs.id) ORDER BY id LIMIT ?",
        (selection.task, selection.half, after, selection.unanswered_by, count),
    )
    return [
        (number, _target(target), Item(place, version, _text(json.loads(text))))
        for number, target, place, version, text in rows
    ]


def _row(one: Labelled) -> tuple[str, int | str, str, str, str]:
    # One label is a number, by which classes are in their order; any other number of them is a text.
    target = one.target[0] if len(one.target) == 1 else json.dumps(one.target)
    return one.task, target, one.item.place, one.item.version, json.dumps(one.item.text)


def _target(stored: int | str) -> Target:
    return (stored,) if isinstance(stored, int) else tuple(json.loads(stored))


def _text(stored: str | list[str] | None) -> Text | None:
    """A text as it was before JSON, which makes a list of a pair."""
    return (stored[0], stored[1]) if isinstance(stored, list) else stored
