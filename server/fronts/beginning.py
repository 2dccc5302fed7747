"""What a front end is told first."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from mass_serve.server.settings import Settings

# A front end leaves them to the process of the device, which tells it what to do.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Beginning:
    """Holds what it is called, in metrics and in the log, and its share of the settings."""

    name: str
    settings: Settings
    joins: bool  # the others serve already, so that it takes no connection before it does
