"""The database that a long run leaves behind, so that it may be killed at any point and go on.

    database = open_journal(path)
    claim(database, {"store_revision": "362b25a5c8c5", "tasks": ["digits"]})

What is in it beside the settings is the run's own: `mass-serve eval` keeps its answers there, and a job the
rows of the part that it is at.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

_SETTINGS = "CREATE TABLE IF NOT EXISTS settings (content TEXT)"


class JournalError(Exception):
    """The journal is another run's; the text says in what they differ."""


def open_journal(path: Path | None) -> sqlite3.Connection:
    """Opens a journal, or begins one; without a path it is a temporary one. Raises sqlite3.Error."""
    # SQLite keeps a database without a name in a temporary file of its own.
    # One thread uses it at a time; another may be the one that lets go of the last reference.
    database = sqlite3.connect("" if path is None else path, check_same_thread=False)
    try:
        # Nothing waits for the disk: of the last answers a machine that fails loses some, a process none.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_SETTINGS)
    except sqlite3.Error:
        database.close()
        raise
    return database


def claim(database: sqlite3.Connection, settings: Mapping[str, object]) -> None:
    """Notes what a run depends on. Raises JournalError where another run has noted something else."""
    content = json.dumps(settings, sort_keys=True)
    found = database.execute("SELECT content FROM settings").fetchone()
    if found is None:
        with database:
            database.execute("INSERT INTO settings VALUES (?)", (content,))
        return
    before, now = json.loads(found[0]), json.loads(content)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise JournalError(f"begun with {name} {before.get(name)}, and this run has {now.get(name)}")
