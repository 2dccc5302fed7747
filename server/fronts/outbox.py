"""What one process has yet to say to the other: whoever says it does not wait until the other reads.

outbox = Outbox[bytes](channel, "answers", lambda _kind, _number, said: [said])
outbox.start()
outbox.put(Kind.ANSWER, 7, b"yes")
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from mass_serve.server.fronts.frames import Channel, Kind, Part

T = TypeVar("T")


class Outbox(Generic[T]):
    """Sends messages in their order, on a thread of its own, until the channel breaks."""

    def __init__(
        self, channel: Channel, name: str, written: Callable[[Kind, int, T], Sequence[Part]]
    ) -> None:
        """`written` makes the parts of a body, on that thread and just before they are sent."""
        self._channel, self._written = channel, written
        # Of this kind, for a finalizer may put something in while its own thread does.
        self._unsent: queue.SimpleQueue[tuple[Kind, int, T] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def put(self, kind: Kind, number: int, said: T) -> None:
        """Has something sent, which is lost where the other process has ended; returns at once."""
        self._unsent.put((kind, number, said))

    def close(self) -> None:
        """Ends the thread after what is unsent; hang the channel up for the other not to be waited for."""
        self._unsent.put(None)

    def join(self) -> None:
        """Waits until nothing more is sent."""
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):
            while (message := self._unsent.get()) is not None:
                kind, number, said = message
                self._channel.send(kind, number, *self._written(kind, number, said))
