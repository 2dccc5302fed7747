"""Memory that bodies and loads have left behind: the C library keeps it until it is told to give it back.

It takes bodies of up to 32 MiB out of one heap, where whatever small comes to lie behind them keeps all of
their room from the system: half a gigabyte after sixty bodies of 30 MiB. Whoever bounds the memory of a
container counts that. A load has what passes over drawn inputs need, and copies of what is kept in another
dtype. `malloc_trim` gives back every page that is free (glibc's manual; other libraries
give back by themselves or not at all, and have no such function).
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

# Less than that is not worth the pages that have to be fetched again.
WORTH_GIVING_BACK = 64 << 20
# What a request holds is let go a little after it is no longer counted, as when its answer is on its way.
SETTLING_SECONDS = 1.0


class FreedMemory:
    """Gives memory back to the system as often as so much of what was held has been freed."""

    def __init__(
        self,
        held: Callable[[], int],
        give_back: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes what tells the bytes that are held, and what gives freed ones back: by default glibc's way.

        Raises RuntimeError where the system has no thread for it.
        """
        self._held = held
        self._give_back = give_back or _malloc_trim()
        self._clock = clock
        self._most = 0  # held since memory was given back
        self._due_at: float | None = None
        # Giving back hundreds of megabytes takes tens of milliseconds, for which nobody shall wait.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="freed-memory")
        self._thread.submit(int).result()  # it is started now: later the system may have none left

    def check(self) -> None:
        """Looks at what is held; whoever keeps time calls this now and then."""
        held = self._held()
        self._most = max(self._most, held)
        if self._most - held < WORTH_GIVING_BACK or self._give_back is None:
            self._due_at = None
        elif self._due_at is None:
            self._due_at = self._clock() + SETTLING_SECONDS
        elif self._clock() >= self._due_at:
            self._most, self._due_at = held, None
            self._thread.submit(self._give_back)

    def close(self) -> None:
        """Ends the thread; what it is at is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _malloc_trim() -> Callable[[], object] | None:
    """Returns what has the C library give back all free pages, or None where it cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)
