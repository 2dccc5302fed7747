"""A server whose store lies on a file system that can be made to hang: a network that went away.

`python -m tests.hostile.stalled_store FLAG STORE` serves STORE; while the file FLAG exists, every read waits.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class StalledFileSystem(LocalFileSystem):  # type: ignore[misc]
    """A local folder behind a lock that somebody else holds."""

    protocol = "stalled"
    flag = Path()

    def _wait(self) -> None:
        while self.flag.exists():
            time.sleep(0.05)

    def cat_file(self, *args: Any, **options: Any) -> Any:
        """Reads a file."""
        self._wait()
        return super().cat_file(*args, **options)

    def get_file(self, *args: Any, **options: Any) -> Any:
        """Copies a file here."""
        self._wait()
        return super().get_file(*args, **options)

    def open(self, *args: Any, **options: Any) -> Any:
        """Opens a file."""
        self._wait()
        return super().open(*args, **options)


def main() -> None:
    """The command."""
    flag, store = sys.argv[1:]
    StalledFileSystem.flag = Path(flag)
    fsspec.register_implementation("stalled", StalledFileSystem)
    from mass_serve.cli.__main__ import main as command

    sys.argv = ["mass-serve", "serve", f"stalled://{store}"]
    command()


if __name__ == "__main__":
    main()
