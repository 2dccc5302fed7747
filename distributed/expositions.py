"""The metrics of all replicas as one page for Prometheus, each sample with the name of its replica.

Whoever is asked for `/metrics` behind a balancer is one of several, and any other the next time: counters
would jump. So each replica tells the board what it counts, and whoever is asked answers for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

LABEL = "replica"
TELL_SECONDS = 2.0
# A replica that has not told for so long has ended.
FORGET_SECONDS = 15.0


class Expositions:
    """The last exposition of every replica."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, tuple[float, str]] = {}

    def tell(self, replica: str, text: str) -> None:
        """Notes what a replica counts now."""
        self._told[replica] = (self._clock(), text)

    def forget(self, replica: str) -> None:
        """Drops a replica that ends."""
        self._told.pop(replica, None)

    @property
    def current(self) -> dict[str, str]:
        """Returns what replicas count, by their names."""
        oldest = self._clock() - FORGET_SECONDS
        self._told = {name: told for name, told in self._told.items() if told[0] >= oldest}
        return {name: text for name, (_, text) in self._told.items()}


def merged(expositions: Mapping[str, str]) -> str:
    """Joins expositions in Prometheus' text format, of each metric all replicas' samples together."""
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for replica, text in sorted(expositions.items()):
        name = ""
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                headers.setdefault(name, [])
            if line.startswith("#"):
                if line not in headers[name]:
                    headers[name].append(line)
            elif line:
                samples.setdefault(name, []).append(_labelled(line, replica))
    return "".join(
        f"{line}\n" for name, lines in headers.items() for line in (*lines, *samples.get(name, ()))
    )


def _labelled(sample: str, replica: str) -> str:
    """Adds the replica to a sample's labels."""
    name, brace, labels = sample.partition("{")
    if brace and " " not in name:
        return f'{name}{{{LABEL}="{replica}",{labels}'
    name, _, value = sample.partition(" ")
    return f'{name}{{{LABEL}="{replica}"}} {value}'
