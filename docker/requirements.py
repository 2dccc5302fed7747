"""Prints what the image installs beside torch, a requirement a line.

    EXTRAS="texts tracing" EXTRA_PACKAGES=s3fs python3 requirements.py < pyproject.toml

These are the project's dependencies, those of the extras, and packages beside. An extra may name others of
the project (`mass-serve[texts]`): pip itself would look for those in its index.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence


def of_extras(names: Sequence[str], extras: Mapping[str, Sequence[str]], project: str) -> Iterator[str]:
    """Yields the requirements of extras and of those that they name. Raises SystemExit for an unknown one."""
    for name in names:
        if name not in extras:
            raise SystemExit(f"there is no extra {name!r}, the extras are {', '.join(extras)}")
        for requirement in extras[name]:
            own = re.fullmatch(rf"{re.escape(project)}\[([^\]]*)\]", requirement)
            if own is None:
                yield requirement
            else:
                yield from of_extras(re.split(r"\s*,\s*", own[1].strip()), extras, project)


def main() -> None:
    """The command."""
    project = tomllib.loads(sys.stdin.read())["project"]
    extras, packages = (os.environ.get(name, "").split() for name in ("EXTRAS", "EXTRA_PACKAGES"))
    of_project = of_extras(extras, project["optional-dependencies"], project["name"])
    print(*dict.fromkeys([*project["dependencies"], *of_project, *packages]), sep="\n")


if __name__ == "__main__":
    main()
