"""The program: `mass-serve`, and the same as `python -m server`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Runs a command."""
    if "serve" in sys.argv[1:]:
        # It means "look at the store", and comes to nothing until there is a server to look. Before anything
        # else is imported, because that takes seconds in which it would end the process.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from server import cli

    cli.main()


if __name__ == "__main__":
    main()
