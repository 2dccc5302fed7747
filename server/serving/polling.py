"""Waiting on the event loop for what threads do, without a thread that waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

POLL_SECONDS = 0.02


async def becomes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Asks again and again until it holds, for so many seconds at most. Returns whether it does."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while not (holds := condition()) and clock() < deadline:
        await asyncio.sleep(POLL_SECONDS)
    return holds
