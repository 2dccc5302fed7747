"""What is remembered of streams, such as a camera's images: the evidence of each one's last inputs.

    stream = streams.of(caller, "camera-7", engine, question)
    answers = ...  # to stream.question
    stream.answered(classifications)

A stream is its caller's own: nobody else reads or changes it. Its memory is of one revision of a store and of
one choice of tasks, and begins anew with another. Memory is bounded: of too many streams the one goes that
was not used for longest, of the caller who has most.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mass_serve.engine import PAPER, Classification, Question, ServingEngine, StreamEvidence
from mass_serve.server.errors import BadRequestError
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.observer import ServingObserver

MOST_CHARACTERS = 128  # of a stream's name


@dataclass(frozen=True)
class _Scope:
    """What evidence is of: that of one is worth nothing in another."""

    store_revision: str
    tasks: tuple[str, ...]
    candidates: tuple[str, ...] | None


@dataclass(frozen=True)
class _Known:
    """What is known of one stream."""

    scope: _Scope
    evidence: StreamEvidence


@dataclass(frozen=True)
class Stream:
    """One request's inputs as the next ones of a stream."""

    question: Question  # with what is remembered
    _streams: Streams
    _caller: str
    _name: str
    _scope: _Scope

    def answered(self, answers: Sequence[Classification]) -> None:
        """Remembers the inputs, in their order."""
        self._streams.remember(self._caller, self._name, self._scope, answers)


class Streams:
    """The streams of all callers. Every method may be called from any thread."""

    def __init__(self, most: int, half_life: float, observer: ServingObserver) -> None:
        """Remembers at most `most` streams, whose evidence counts half after `half_life` inputs."""
        self._most, self._half_life, self._observer = most, half_life, observer
        self._of_callers: dict[str, OrderedDict[str, _Known]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def of(self, caller: Caller, name: str, engine: ServingEngine, question: Question) -> Stream:
        """The stream of that name for the next inputs. Raises BadRequestError."""
        check_stream_name(name)
        if self._most == 0:
            raise BadRequestError("This server remembers no streams (max_streams); ask without 'stream'.")
        if engine.modes == (PAPER,):
            raise BadRequestError(
                f"This server searches in the mode {PAPER}, whose evidence is not remembered; ask without"
                " 'stream'."
            )
        scope = _Scope(engine.store_revision, tuple(engine.tasks), question.tasks)
        with self._lock:
            known = self._of_callers.get(caller.name, OrderedDict()).get(name)
        evidence = known.evidence if known is not None and known.scope == scope else StreamEvidence()
        remembered = evidence.remembered(self._half_life)
        return Stream(replace(question, remembered=remembered), self, caller.name, name, scope)

    def remember(self, caller: str, name: str, scope: _Scope, answers: Sequence[Classification]) -> None:
        """Takes the evidence of a stream's next inputs, if their task was searched for."""
        evidence = [answer.evidence.own for answer in answers if answer.evidence is not None]
        if not evidence:
            return
        with self._lock:
            own = self._of_callers.setdefault(caller, OrderedDict())
            known = own.pop(name, None)
            self._count += known is None
            before = known.evidence if known is not None and known.scope == scope else StreamEvidence()
            now, begins_anew = before.followed_by(evidence, self._half_life)
            own[name] = _Known(scope, now)
            dropped = self._drop_one() if self._count > self._most else False
        if begins_anew:
            self._observer.stream_began_anew()
        if dropped:
            self._observer.stream_dropped()

    def _drop_one(self) -> bool:
        caller = max(self._of_callers, key=lambda name: len(self._of_callers[name]))
        own = self._of_callers[caller]
        own.popitem(last=False)
        if not own:
            del self._of_callers[caller]
        self._count -= 1
        return True


def check_stream_name(name: str) -> None:
    """Raises BadRequestError for a name that is too long or cannot be shown."""
    if not (0 < len(name) <= MOST_CHARACTERS and name.isprintable()):
        raise BadRequestError(
            f"'stream' must be a name of 1 to {MOST_CHARACTERS} printable characters, not {name[:40]!a}"
            f" with {len(name):,}."
        )
