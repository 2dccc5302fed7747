"""What becomes of the mutants of one file."""

from __future__ import annotations

import os
import random
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.making import Mutant, mutants
from tests.mutants.trying import passes

# Of a file with more mutants than are tried, the same ones are drawn each time.
SEED = 14
# A try may take so many times as long as the tests without a change, and so many seconds beyond.
PATIENCE = (3.0, 5.0)
# With a time of their own: the interpreter compares those in whole seconds before it compiles a file again.
FIRST_TIME = 1_000_000_000


@dataclass(frozen=True)
class Count:
    """How many mutants of a file there are, were tried, were noticed, and were not but are equivalent."""

    file: str
    made: int
    tried: int
    noticed: int
    equivalent: int

    @property
    def share(self) -> float:
        """Returns the share that was noticed of those that differ."""
        return self.noticed / max(1, self.tried - self.equivalent)


@dataclass(frozen=True)
class Trial:
    """A file of a checkout, and the tests that belong to it."""

    folder: Path
    file: str
    tests: Sequence[str]
    equivalent: set[tuple[str, str]]  # the line, and what it becomes

    def count(self, most: int, tell: Callable[[str], None]) -> Count:
        """Tries the file's mutants, at most so many, and tells of those that survive.

        Raises RuntimeError where the tests fail without a change.
        """
        source = (self.folder / self.file).read_text()
        made = mutants(source)
        chosen = made if len(made) <= most else random.Random(SEED).sample(made, most)
        seconds = self._patience(source)
        left = []
        for number, mutant in enumerate(chosen, start=1):
            passed = self._passes(mutant.source, number, seconds)
            if passed:
                left.append(mutant)
            self._tell(mutant, passed, tell)
        (self.folder / self.file).write_text(source)
        equivalent = sum((mutant.was, mutant.now) in self.equivalent for mutant in left)
        return Count(self.file, len(made), len(chosen), len(chosen) - len(left), equivalent)

    def _patience(self, source: str) -> float:
        began = time.monotonic()
        for number in (-1, 0):  # what is compiled and kept is not counted
            began = time.monotonic()
            if not self._passes(source, number, 600.0):
                raise RuntimeError(
                    f"the tests of {self.file} fail without a change: {self._report.read_text()}"
                )
        times, more = PATIENCE
        return times * (time.monotonic() - began) + more

    @property
    def _report(self) -> Path:
        return self.folder.with_name("report.txt")

    def _passes(self, source: str, number: int, seconds: float) -> bool:
        path = self.folder / self.file
        path.write_text(source)
        os.utime(path, (FIRST_TIME + number, FIRST_TIME + number))
        return passes(self.folder, self.tests, seconds, self._report)

    def _tell(self, mutant: Mutant, passed: bool, tell: Callable[[str], None]) -> None:
        named = (mutant.was, mutant.now) in self.equivalent
        if passed != named:
            what = "survived" if passed else "is not equivalent"
            tell(f"{self.file}:{mutant.line} {what}\n  - {mutant.was}\n  + {mutant.now}")


def equivalent_changes(path: Path, file: str) -> set[tuple[str, str]]:
    """Reads the changes of a file that no test can notice."""
    entries = tomllib.loads(path.read_text()).get("equivalent", [])
    return {(entry["was"], now) for entry in entries if entry["file"] == file for now in entry["now"]}
