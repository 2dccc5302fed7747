"""Whoever is refused again and again is answered later: a refusal costs less than an answer, but not nothing.

await refusals.slow_down(caller)  # before a caller is told that there is no room for its request
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mass_serve.server.serving.caller import Caller

# So many refusals a caller has at once, and as many more in each second; the answers to others wait.
AT_ONCE = 20.0
A_SECOND = 20.0
# On average as long as `Retry-After` says: who heeds it never notices.
DELAY = 1.0
# Callers that are remembered; beyond it the one that was refused the longest ago is forgotten.
MOST_CALLERS = 10_000


@dataclass
class _Allowance:
    left: float
    at: float


class Refusals:
    """Remembers who was refused of late, a bucket of tokens for each caller. It belongs to one event loop."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()  # the last refused is the last

    async def slow_down(self, caller: Caller) -> None:
        """Counts a refusal, and returns at once or, where there were too many of late, after a while."""
        if not self._takes_one(caller.name):
            # Not all at the same moment: they would come back so.
            await self._sleep(DELAY * random.uniform(0.5, 1.5))

    def _takes_one(self, name: str) -> bool:
        now = self._clock()
        allowance = self._allowances.setdefault(name, _Allowance(AT_ONCE, now))
        self._allowances.move_to_end(name)
        if len(self._allowances) > MOST_CALLERS:
            self._allowances.popitem(last=False)
        allowance.left = min(AT_ONCE, allowance.left + A_SECOND * (now - allowance.at))
        allowance.at = now
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True
