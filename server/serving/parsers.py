"""Where bodies are parsed: on threads, dear ones one at a time, and the dearest outside of this process.

A parser holds the interpreter's lock for as long as it works, and with it the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from mass_serve.sandbox.bounds import (
    Bounds,
    ExceededError,
    MemoryShortError,
    RefusedError,
    SandboxError,
)
from mass_serve.sandbox.child import ResultTooLargeError
from mass_serve.sandbox.messages import Buffer
from mass_serve.sandbox.pool import SandboxPool
from mass_serve.server.errors import (
    BadRequestError,
    NoMemoryError,
    ServiceError,
    SlowInputError,
    TooLargeError,
)
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

# Parsing holds the interpreter's lock, so more threads would not parse more.
THREADS = 4
# What the way to a thread and back counts for beside the bytes of a body.
LEAST_BYTES = 10_000

LANE = "parse"
# A number in JSON becomes an object of 32 bytes and its place in a list, and takes at least two bytes there.
MEMORY_PER_BYTE, LEAST_MEMORY = 64, 256 << 20
# In binary it takes four.
RESULT_PER_BYTE, LEAST_RESULT = 2, 1 << 16
LEAST_SECONDS, SLOWEST_BYTES_PER_SECOND = 5.0, 1_000_000
WALL_FACTOR = 5.0
# What is expected, for the order in which bodies are parsed.
BYTES_PER_SECOND = 10_000_000
# What may be said of a body outside, by name.
REFUSALS: dict[str, type[ServiceError]] = {kind.__name__: kind for kind in (BadRequestError, TooLargeError)}


class Parsers:
    """Parses bodies so that the event loop goes on."""

    def __init__(self, pool: SandboxPool) -> None:
        """Starts the threads."""
        self._pool = pool
        self._threads = Threads(THREADS, "parse")
        self._thread_for_one = Threads(1, "parse-one")

    async def run(
        self, turn: Turn, nbytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Returns what `work` returns, on a thread; it reads or writes about so many bytes."""
        return await self._threads.run(turn, LEAST_BYTES + nbytes, work, *args, **kwargs)

    async def run_alone(
        self, turn: Turn, nbytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Returns what `work` returns, of which one piece at a time is done."""
        return await self._thread_for_one.run(turn, LEAST_BYTES + nbytes, work, *args, **kwargs)

    async def run_outside(self, function: str, body: Buffer, options: bytes, turn: Turn) -> bytearray:
        """Returns what a function, named as "module:function", makes of a body, in a worker process.

        Raises the ServiceError that it raised, TooLargeError for a body that takes too much, and
        NoMemoryError.
        """
        try:
            return await self._pool.submit(
                function,
                body,
                options,
                lane=LANE,
                turn=turn,
                cost=len(body) / BYTES_PER_SECOND,
                bounds=bounds_of(len(body)),
            )
        except RefusedError as error:
            if error.kind == ResultTooLargeError.__name__:
                raise _takes_too_much() from error
            if error.kind not in REFUSALS:
                raise
            raise REFUSALS[error.kind](str(error)) from error
        except SandboxError as error:
            raise _failed(error) from error

    @property
    def busy(self) -> bool:
        """Tells whether a thread is at work."""
        return self._threads.busy or self._thread_for_one.busy

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest piece of work on a thread; 0 without one."""
        return max(self._threads.oldest_seconds, self._thread_for_one.oldest_seconds)

    def close(self) -> None:
        """Drops what waits; what runs is not waited for."""
        self._threads.close()
        self._thread_for_one.close()


def bounds_of(body_bytes: int) -> Bounds:
    """Returns what parsing a body may take."""
    seconds = LEAST_SECONDS + body_bytes / SLOWEST_BYTES_PER_SECOND
    return Bounds(
        cpu_seconds=seconds,
        wall_seconds=WALL_FACTOR * seconds,
        memory_bytes=LEAST_MEMORY + MEMORY_PER_BYTE * body_bytes,
        result_bytes=LEAST_RESULT + RESULT_PER_BYTE * body_bytes,
    )


def _failed(error: SandboxError) -> ServiceError:
    """Returns the error for a body whose worker had no result."""
    if isinstance(error, MemoryShortError):
        return NoMemoryError("The server has not the memory to read this body now; try again.")
    if isinstance(error, ExceededError) and error.reason == "wall":
        return SlowInputError("The JSON took too long to read; send tensors in binary form.")
    if isinstance(error, ExceededError) and error.reason in ("cpu", "memory"):
        return _takes_too_much()
    return BadRequestError("The JSON broke its parser; send tensors in binary form.")


def _takes_too_much() -> TooLargeError:
    return TooLargeError("The JSON takes too much to read; send tensors in binary form.")
