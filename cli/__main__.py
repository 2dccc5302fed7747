"""The program: `mass-serve`, and the same as `python -m mass_serve.cli`."""

from __future__ import annotations

import gc
import signal
import sys


def main() -> None:
    """Runs a command."""
    # To look through all that torch makes takes a tenth of a second, several times while it is imported.
    # Garbage is looked for once the command is there (`lazy_commands.LazyGroup.resolve_command`).
    gc.disable()
    if "serve" in sys.argv[1:]:
        # SIGHUP means "poll the store" and has no effect until there is a server. It is ignored before
        # anything else is imported, because that takes seconds in which the signal would end the process.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from mass_serve.cli import app

    app.main()


if __name__ == "__main__":
    main()
