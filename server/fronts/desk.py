"""The device's side of one front end: it hears what is asked, and has it answered."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

import structlog

from mass_serve.engine import AnyQuery, ServingEngine
from mass_serve.server.fronts.answer_form import dumps
from mass_serve.server.fronts.frames import Channel, Frame, Kind, Part, WrongFrameError
from mass_serve.server.fronts.outbox import Outbox
from mass_serve.server.fronts.query_form import unpacked
from mass_serve.server.fronts.remote_engine import Description

# How often a front end may ask before it has an answer. A second batch tries an engine before it serves.
MOST_ASKED = {Kind.BATCH: 2, Kind.LOAD: 1, Kind.SCRAPE: 1}

log = structlog.get_logger(__name__)


class Behind(Protocol):
    """What is behind all desks."""

    def submit(self, desk: Desk, number: int, engine: ServingEngine, queries: list[AnyQuery]) -> None:
        """Answers a batch as soon as those before it are."""

    def description(self, desk: Desk, wanted: dict[str, Any]) -> Description:
        """Describes the engine that is wanted. Raises what its load has raised."""

    def exposition(self) -> bytes:
        """Returns the metrics of all processes."""


class Desk:
    """One front end, from its start to its end."""

    def __init__(self, channel: Channel, name: str, behind: Behind) -> None:
        self.name = name
        self._channel, self._behind = channel, behind
        self._held: dict[int, ServingEngine] = {}
        self._handles = count(1)
        self.heard: float | None = None  # when its event loop has told last that it turns
        self.serves = 0  # the number of its engine; 0 while it has none
        self._changing: set[int] = set()  # the numbers of its questions for another engine
        self._asking = threading.Lock()
        self._rendering: Future[bytes] | None = None
        self._asked: dict[int, Kind] = {}  # by number, until the answer is sent
        # A front end that does not read shall hold up nobody but itself.
        self._outbox = Outbox[object](channel, f"{name} answers", self._written)

    def start(self) -> None:
        """Begins to listen and to speak."""
        self._outbox.start()
        threading.Thread(target=self._listen, name=self.name, daemon=True).start()

    def close(self) -> None:
        """Ends the channel, which the front end takes for an end of the service."""
        self._outbox.close()
        self._channel.hang_up()

    def tell(self, kind: Kind, number: int = 0, said: object = None) -> None:
        """Says something to the front end, which may have ended; returns at once."""
        self._outbox.put(kind, number, said)

    def answer(self, number: int, found: object) -> None:
        """Answers what was asked with that number, with a result or an error."""
        self.tell(Kind.ANSWER, number, found)

    def hold(self, engine: ServingEngine) -> int:
        """Keeps an engine that the front end may ask, and returns its handle."""
        handle = next(self._handles)
        self._held[handle] = engine
        return handle

    def lags_behind(self, number: int) -> bool:
        """Tells whether it still serves an earlier engine, and does not itself ask for another."""
        return 0 < self.serves < number and not self._changing

    def rendered(self) -> Future[bytes]:
        """Asks for the metrics of the front end, or joins who has asked already."""
        with self._asking:
            if self._rendering is None or self._rendering.done():
                self._rendering = Future()
                self.tell(Kind.RENDER)
            return self._rendering

    def _written(self, kind: Kind, number: int, said: object) -> Sequence[Part]:
        if kind is Kind.ANSWER:
            self._asked.pop(number, None)
        try:
            return (dumps(said),)
        except Exception as error:  # whoever asked shall not wait for ever
            log.exception("an answer cannot be sent", front_end=self.name)
            return (dumps(RuntimeError(f"the answer cannot be sent: {error}")),)

    def _listen(self) -> None:
        try:
            while (frame := self._channel.receive()) is not None:
                self._hear(frame)
        except Exception as error:  # whatever it was, nobody would listen any more
            log.error("a front end says what makes no sense", front_end=self.name, error=repr(error))
        self.close()
        self._outbox.join()
        self._channel.close()
        self._held.clear()

    def _hear(self, frame: Frame) -> None:
        if frame.kind in MOST_ASKED:
            self._note_asked(frame)
        match frame.kind:
            case Kind.BATCH:
                self._take_batch(frame)
            case Kind.LOAD:
                self._apart(frame, self._described)
            case Kind.SCRAPE:
                self._apart(frame, lambda _: self._behind.exposition())
            case Kind.PREFETCH:
                self._prefetch(frame)
            case Kind.FORGET:
                self._held.pop(frame.number, None)
            case Kind.ALIVE:
                self.heard = time.monotonic()
            case Kind.SERVES:
                self.serves = frame.number
            case Kind.RENDERED:
                if self._rendering is not None:
                    with suppress(InvalidStateError):
                        self._rendering.set_result(bytes(frame.body))
            case _:
                raise WrongFrameError(f"a front end does not say {frame.kind.name}")

    def _note_asked(self, frame: Frame) -> None:
        asked = self._asked.copy()
        most = MOST_ASKED[frame.kind]
        if frame.number in asked or list(asked.values()).count(frame.kind) >= most:
            raise WrongFrameError(f"a front end asks {frame.kind.name} at most {most} times at once")
        self._asked[frame.number] = frame.kind

    def _prefetch(self, frame: Frame) -> None:
        if (engine := self._held.get(frame.number)) is not None:
            engine.prefetch(list(map(str, json.loads(frame.body))))

    def _take_batch(self, frame: Frame) -> None:
        try:
            handle, queries = unpacked(frame.body)
            engine = self._held[handle]
        except (ValueError, LookupError) as error:
            self.answer(frame.number, error)
            return
        self._behind.submit(self, frame.number, engine, queries)

    def _described(self, frame: Frame) -> Description:
        wanted = json.loads(frame.body)
        if not (wanted["polls"] or wanted["load"] or wanted["unload"]):
            return self._behind.description(self, wanted)
        self._changing.add(frame.number)
        try:
            return self._behind.description(self, wanted)
        finally:
            self._changing.discard(frame.number)

    def _apart(self, frame: Frame, work: Callable[[Frame], object]) -> None:
        """Answers on a thread of its own what may take long."""

        def run() -> None:
            try:
                found: object = work(frame)
            except Exception as error:
                found = error
            self.answer(frame.number, found)

        threading.Thread(target=run, name=f"{self.name} asks", daemon=True).start()
