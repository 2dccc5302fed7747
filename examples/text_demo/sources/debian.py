"""What Debian's packages are in a line: by section, and by the interface that their debtags name."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from examples.from_packages.packages import FetchError
from examples.text_demo.texts import Text

SECTIONS = 12  # those with the most packages
# Sections that say who a package is for or how it is made, not what it is about.
NO_SUBJECT = {"libs", "libdevel", "oldlibs", "debug", "misc", "metapackages", "doc", "introspection"}
INTERFACES = {
    "commandline": "command line",
    "graphical": "graphical",
    "daemon": "daemon",
    "text-mode": "text mode",
    "web": "web",
}
_TAG = re.compile(r"\binterface::([a-z0-9-]+)")
_LISTED = ["apt-cache", "dumpavail"]


def packages(_raw: Path) -> Iterator[Text]:
    """The line of every package of a frequent section."""
    entries = [entry for entry in _entries() if entry["Section"] not in NO_SUBJECT]
    counts = Counter(entry["Section"] for entry in entries)
    frequent = {section for section, _ in counts.most_common(SECTIONS)}
    return (_text(entry["Section"], entry) for entry in entries if entry["Section"] in frequent)


def interfaces(_raw: Path) -> Iterator[Text]:
    """The line of every package that has one of the interfaces and no other."""
    for entry in _entries():
        found = {INTERFACES[tag] for tag in _TAG.findall(entry.get("Tag", "")) if tag in INTERFACES}
        if len(found) == 1:
            yield _text(found.pop(), entry)


def parsed(listing: str) -> Iterator[dict[str, str]]:
    """The fields of every package that has a section and a description."""
    for stanza in listing.split("\n\n"):
        unfolded = stanza.replace("\n ", " ")
        entry = dict(line.split(": ", 1) for line in unfolded.splitlines() if ": " in line)
        if "Section" in entry and "Description" in entry:
            yield entry


def _text(label: str, entry: dict[str, str]) -> Text:
    source = entry.get("Source", entry["Package"]).split()[0]
    return Text(label, source, entry["Description"])


def _entries() -> list[dict[str, str]]:
    """The packages that the system's lists have. Raises FetchError where there are no lists."""
    try:
        done = subprocess.run(_LISTED, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise FetchError("Debian's list of packages comes by apt-cache, on Debian or Ubuntu") from error
    entries = list(parsed(done.stdout))
    if not any("Tag" in entry for entry in entries):
        raise FetchError("apt-cache knows no packages: run apt-get update first")
    return entries
