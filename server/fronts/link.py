"""A front end's side of the channel: it asks the device's process, and hears what that tells it.

link = Link(channel)
link.start(told)
description = link.ask(Kind.LOAD, body)
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from mass_serve.engine import DeviceLostError
from mass_serve.server.fronts.answer_form import loads
from mass_serve.server.fronts.frames import Channel, Frame, Kind, Part
from mass_serve.server.fronts.outbox import Outbox


class Link:
    """Any thread may ask, an event loop's and a finalizer's, too.

    What the device's process tells unasked goes to `told`, on the link's thread.
    """

    def __init__(self, channel: Channel) -> None:
        self.is_lost = False
        self._channel = channel
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[bytearray]] = {}
        self._changing = threading.Lock()
        self._outbox = Outbox[Sequence[Part]](channel, "link speaks", lambda _kind, _number, parts: parts)

    def start(self, told: Callable[[Frame], None]) -> None:
        """Begins to listen and to speak."""
        self._outbox.start()
        threading.Thread(target=self._listen, args=(told,), name="link", daemon=True).start()

    def ask(self, kind: Kind, *parts: Part) -> Any:
        """Returns the answer. Raises the error that it is, and DeviceLostError where none will come."""
        return loads(self.asked(kind, *parts).result())

    def asked(self, kind: Kind, *parts: Part) -> Future[bytearray]:
        """Asks, and returns what will have the answer's bytes."""
        future: Future[bytearray] = Future()
        number = next(self._numbers)
        with self._changing:
            if self.is_lost:
                future.set_exception(_lost())
                return future
            self._asked[number] = future
        self.tell(kind, number, *parts)
        return future

    def tell(self, kind: Kind, number: int = 0, *parts: Part) -> None:
        """Says something that has no answer; it is lost with the device's process. Returns at once."""
        if not self.is_lost:
            self._outbox.put(kind, number, parts)

    def _listen(self, told: Callable[[Frame], None]) -> None:
        while (frame := self._channel.receive()) is not None and frame.kind is not Kind.LOST:
            if frame.kind is not Kind.ANSWER:
                told(frame)
            elif (future := self._asked.pop(frame.number, None)) is not None:
                with suppress(InvalidStateError):  # who asked waits no more
                    future.set_result(frame.body)
        with self._changing:
            self.is_lost = True
            asked, self._asked = self._asked, {}
        self._outbox.close()
        for future in asked.values():
            with suppress(InvalidStateError):
                future.set_exception(_lost())


def _lost() -> DeviceLostError:
    return DeviceLostError("the process that has the device has ended, or has lost it")
