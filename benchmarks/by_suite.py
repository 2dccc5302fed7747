"""Commands that measure suites one by one: what they are asked, and the file of their figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class AskedSuites:
    """The suites to measure, where raw evidence is kept, and where figures go."""

    suites: Sequence[Path]  # a folder each
    json: Path | None
    records: Path | None  # asked for where a command keeps any

    def record(self, suite: str, figures: Any) -> None:
        """Writes the figures of one suite; those of other suites in the file stay."""
        if self.json is None:
            return
        kept = json.loads(self.json.read_text()) if self.json.exists() else {}
        self.json.write_text(json.dumps(dict(sorted((kept | {suite: figures}).items())), indent=1) + "\n")


def asked_suites(description: str | None, *, records: bool = False) -> AskedSuites:
    """Parses the command line: a folder of suites, `--only` some of them, and where the figures go."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", type=Path, help="folder of the suites")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these suites of the folder")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    if records:
        parser.add_argument("--records", type=Path, required=True, help="folder to keep raw evidence in")
    asked = parser.parse_args()
    names = asked.only or sorted(
        path.parent.parent.name for path in asked.suites.glob("*/store/manifest.json")
    )
    return AskedSuites(
        [asked.suites / name for name in names], asked.json, asked.records if records else None
    )
