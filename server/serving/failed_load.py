"""A load that failed, and when it is worth another try: after a few seconds, then ever later."""

from __future__ import annotations

import time
from dataclasses import dataclass

FIRST_RETRY_SECONDS = 10.0
LAST_RETRY_SECONDS = 300.0


@dataclass(frozen=True)
class FailedLoad:
    """Why the newest revision is not the one that serves."""

    revision: str | None  # None: not even that could be told
    error: Exception
    attempts: int
    at: float  # of `time.monotonic`

    @classmethod
    def after(cls, before: FailedLoad | None, revision: str | None, error: Exception) -> FailedLoad:
        """A failure now, behind those of the same revision before it."""
        attempts = before.attempts + 1 if before is not None and before.revision == revision else 1
        return cls(revision, error, attempts, time.monotonic())

    def is_due(self) -> bool:
        """Tells whether it has waited long enough to be tried again."""
        wait = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** (self.attempts - 1))
        return time.monotonic() >= self.at + wait

    def is_of(self, revision: str | None, error: Exception) -> bool:
        """Tells whether the same has failed with the same words."""
        return (self.revision, str(self.error)) == (revision, str(error))
