"""How many images, or texts, the holder of a key may have answered in a second, where its key says.

rates.check(caller)      # before anything of a request is read
rates.take(caller, 3)    # once it is admitted
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from mass_serve.server.errors import RateLimitError
from mass_serve.server.serving.caller import Caller

# What a caller that was idle may have at once, in seconds of its rate.
BURST_SECONDS = 1.0
# Callers whose time is remembered before those that have caught up are forgotten.
MANY_CALLERS = 1000


class Rates:
    """Keeps for each caller until when what it was given is paid for. It belongs to one event loop.

    n answers at a rate r are paid for in n / r seconds. A caller is given more while no more than
    BURST_SECONDS are owed, so that a request of any size is answered now and then, and costs its size.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid_at: dict[str, float] = {}

    def check(self, caller: Caller) -> None:
        """Raises RateLimitError where the caller gets nothing now."""
        if caller.rate is None:
            return
        owed = self._paid_at.get(caller.name, -math.inf) - self._clock()
        if owed > BURST_SECONDS:
            raise RateLimitError(
                f"The rate of your key is {caller.rate:g} images or texts a second; try again after"
                " Retry-After.",
                math.ceil(owed - BURST_SECONDS),
            )

    def take(self, caller: Caller, answers: int) -> None:
        """Counts answers that a caller is given. Raises RateLimitError where it gets none now."""
        if caller.rate is None:
            return
        self.check(caller)
        now = self._clock()
        self._paid_at[caller.name] = max(self._paid_at.get(caller.name, now), now) + answers / caller.rate
        if len(self._paid_at) > MANY_CALLERS:
            self._paid_at = {name: at for name, at in self._paid_at.items() if at > now}
