"""The metrics of several processes as one page for Prometheus, each sample with the name of its process."""

from __future__ import annotations

from collections.abc import Mapping


def merged(expositions: Mapping[str, str], label: str) -> str:
    """Joins expositions in Prometheus' text format, of each metric the samples of all together.

    `expositions` are by the name of the process that each is of, which its samples have as that label.
    """
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for process, text in sorted(expositions.items()):
        name = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                name = line.split(" ", 3)[2]
                if line not in headers.setdefault(name, []):
                    headers[name].append(line)
            elif line:
                samples.setdefault(name, []).append(_labelled(line, f'{label}="{process}"'))
    return "".join(
        f"{line}\n" for name, lines in headers.items() for line in (*lines, *samples.get(name, ()))
    )


def _labelled(sample: str, label: str) -> str:
    """Adds a label to those of a sample."""
    name, brace, labels = sample.partition("{")
    if brace and " " not in name:
        return f"{name}{{{label},{labels}"
    name, _, value = sample.partition(" ")
    return f"{name}{{{label}}} {value}"
