"""Wrong keys slow down whoever presents them: guessing takes time, and right keys wait for nobody's.

except WrongKeyError:
    await wrong_keys.slow_down(caller)
    raise
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mass_serve.server.errors import WrongKeysError
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.observer import ServingObserver

# The answer to the first wrong key waits so long, each further one twice as long as the one before.
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
FORGOTTEN_AFTER = 60.0
# Delayed answers that one caller may have open.
MOST_OPEN = 4
# Callers that are remembered; beyond it the one whose last wrong key is the oldest is forgotten.
MOST_CALLERS = 10_000


@dataclass
class _Record:
    last: float
    wrong: int = 0
    open: int = 0


class WrongKeys:
    """Remembers who has presented wrong keys of late. It belongs to one event loop."""

    def __init__(
        self,
        observer: ServingObserver,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._sleep = sleep
        self._records: OrderedDict[str, _Record] = OrderedDict()  # the last wrong key's is the last

    async def slow_down(self, caller: Caller) -> None:
        """Counts a wrong key, and returns after a while. Raises WrongKeysError where too many wait."""
        self._observer.wrong_key()
        record = self._record(caller)
        if record.open >= MOST_OPEN:
            raise WrongKeysError(
                "Too many wrong keys came from your address; look at your key, then try again."
            )
        record.open += 1
        try:
            await self._sleep(_delay(record.wrong))
        finally:
            record.open -= 1

    def _record(self, caller: Caller) -> _Record:
        """Returns a caller's record with one more wrong key in it."""
        now = self._clock()
        record = self._records.setdefault(caller.name, _Record(now))
        if now - record.last > FORGOTTEN_AFTER:
            record.wrong = 0
        record.wrong += 1
        record.last = now
        self._records.move_to_end(caller.name)
        if len(self._records) > MOST_CALLERS:
            self._records.popitem(last=False)
        return record


def _delay(wrong: int) -> float:
    """Returns the seconds for which the answer to so many wrong keys waits.

    `min(LONGEST_DELAY, FIRST_DELAY * 2 ** (wrong - 1))`
    """
    # The doublings are bounded too: a float has no place for thousands of them.
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(wrong - 1, 10)))
