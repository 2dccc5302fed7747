"""`make mutants`: changes the modules of table.toml, one small change at a time, and counts what is noticed.

    python -m tests.mutants               all modules
    python -m tests.mutants queue keys    these

It works on a copy of the checkout, with its uncommitted changes, so that nothing can be left behind.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.counting import Count, Trial, equivalent_changes
from tests.mutants.trying import import_heavy

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("table.toml")
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
ROW = "{:12} {:40} {:>5} {:>6} {:>8} {:>11} {:>6}"


def main(names: Sequence[str]) -> None:
    """Tries the mutants of the named modules, or of all, and prints a table."""
    table = tomllib.loads(TABLE.read_text())
    if unknown := set(names) - table.keys():
        sys.exit(f"There is no module {', '.join(sorted(unknown))}; choose of {', '.join(table)}.")
    import_heavy()
    with tempfile.TemporaryDirectory(prefix="mutants-") as made:
        checkout = Path(made) / "checkout"
        _copy(checkout)
        counts = [(name, count) for name in names or table for count in _counts(checkout, table[name])]
    print(ROW.format("module", "file", "made", "tried", "noticed", "equivalent", "share"))
    for name, count in counts:
        figures = (count.made, count.tried, count.noticed, count.equivalent, f"{count.share:.3f}")
        print(ROW.format(name, count.file, *figures))


def _copy(folder: Path) -> None:
    """Copies what git would: the files of the checkout as they are, also those that are new."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    paths = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for path in (path for path in paths if path and (ROOT / path).exists()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path, follow_symlinks=False)


def _counts(checkout: Path, module: dict[str, dict[str, object]]) -> list[Count]:
    counts = []
    for file, row in module.items():
        trial = Trial(checkout, file, row["tests"], equivalent_changes(EQUIVALENT, file))
        counts.append(trial.count(row.get("most", sys.maxsize), _print))
    return counts


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
