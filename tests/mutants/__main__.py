"""`make mutants`: changes the modules of table.toml, one small change at a time, and counts what is noticed.

    python -m tests.mutants               all modules
    python -m tests.mutants queue keys    these; a file of the table is named by its path

It works on a copy of the checkout, with its uncommitted changes, so that nothing can be left behind. Ends
with 1 where less than nine tenths of the changes of a file are noticed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.mutants.counting import Count, Trial, equivalent_changes
from tests.mutants.trying import import_heavy

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("table.toml")
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
ROW = "{:12} {:48} {:>5} {:>6} {:>8} {:>11} {:>6}"
HEAD = ROW.format("module", "file", "made", "tried", "noticed", "equivalent", "share")
# This share of the changes of a file is to be noticed.
LEAST_SHARE = 0.9


def main(names: Sequence[str]) -> int:
    """Tries the mutants of the named modules and files, or of all, and prints a table of what was noticed."""
    table = tomllib.loads(TABLE.read_text())
    rows = [(module, file, row) for module, files in table.items() for file, row in files.items()]
    if unknown := set(names) - {name for module, file, _ in rows for name in (module, file)}:
        sys.exit(f"There is no module {', '.join(sorted(unknown))}; choose of {', '.join(table)}.")
    import_heavy()
    with tempfile.TemporaryDirectory(prefix="mutants-") as made:
        checkout = Path(made) / "checkout"
        _copy(checkout)
        chosen = [row for row in rows if not names or set(names) & set(row[:2])]
        counts = [(module, _tried(checkout, module, file, row)) for module, file, row in chosen]
    _print(HEAD, *(_line(module, count) for module, count in counts))
    if short := [count.file for _, count in counts if count.share < LEAST_SHARE]:
        _print(f"Less than {LEAST_SHARE} was noticed of: {', '.join(short)}.")
    return 1 if short else 0


def _tried(checkout: Path, module: str, file: str, row: Mapping[str, Any]) -> Count:
    trial = Trial(checkout, file, row["tests"], equivalent_changes(EQUIVALENT, file))
    count = trial.count(row.get("most", sys.maxsize), _print)
    _print(_line(module, count))
    return count


def _line(module: str, count: Count) -> str:
    figures = (count.made, count.tried, count.noticed, count.equivalent, f"{count.share:.3f}")
    return ROW.format(module, count.file, *figures)


def _copy(folder: Path) -> None:
    """Copies what git would: the files of the checkout as they are, also those that are new."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    paths = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for path in (path for path in paths if path and (ROOT / path).exists()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path, follow_symlinks=False)


def _print(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
