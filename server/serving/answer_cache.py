"""Answers to inputs that come again: the same bits as the model would give, without a place on the device.

    recalled = await cache.recall(queries, engine, caller)
    answers = recalled.completed(await the_engines(recalled.missing))

An answer depends on its input and its question alone, as the engine promises equal bits whatever else is in a
batch. Not kept are those that depend on more: of inputs that are judged together, of texts whose answer says
where in them an entity stands, and those with priors, which are learned of other inputs or said for one. A
caller with a key finds none but what was asked with that key: how quickly an answer comes would tell what
others have asked.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mass_serve.engine import AnyAnswer, AnyQuery, Query, ServingEngine, TextQuery, answer_nbytes, kept
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.observer import ServingObserver
from mass_serve.server.serving.parsers import Parsers

# Hashing so much holds the event loop for a millisecond.
BYTES_HASHED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Recalled:
    """What is known of a request's answers; it keeps the others when they come."""

    _cache: AnswerCache
    _queries: Sequence[AnyQuery]
    _keys: Sequence[bytes | None]
    _known: Sequence[AnyAnswer | None]

    @property
    def count(self) -> int:
        """How many answers are known."""
        return len(self._known) - self._known.count(None)

    @property
    def missing(self) -> list[AnyQuery]:
        """The queries whose answers are not known."""
        return [query for query, known in zip(self._queries, self._known, strict=True) if known is None]

    @property
    def spared(self) -> list[AnyQuery]:
        """The queries whose answers are known."""
        return [query for query, known in zip(self._queries, self._known, strict=True) if known is not None]

    def completed(self, found: Sequence[AnyAnswer]) -> list[AnyAnswer]:
        """All answers, in the order of the queries, given those to the missing ones."""
        rest, answers = iter(found), list[AnyAnswer]()
        for key, known in zip(self._keys, self._known, strict=True):
            answers.append(next(rest) if known is None else known)
            if known is None and key is not None:
                self._cache.keep(key, answers[-1])
        return answers


class AnswerCache:
    """Answers within a budget of bytes, those dropped first that were not asked for longest.

    The event loop alone calls it.
    """

    def __init__(self, budget_bytes: int, parsers: Parsers, observer: ServingObserver) -> None:
        """`parsers` has the threads on which much is hashed. A budget of 0 keeps nothing."""
        self._budget_bytes, self._parsers, self._observer = budget_bytes, parsers, observer
        self.nbytes = 0
        self._answers: OrderedDict[bytes, tuple[AnyAnswer, int]] = OrderedDict()
        self._engines: list[tuple[weakref.ref[ServingEngine], int]] = []  # that are alive, with numbers
        self._num_engines = 0

    async def recall(self, queries: Sequence[AnyQuery], engine: ServingEngine, caller: Caller) -> Recalled:
        """Returns what this engine has answered to the same queries before."""
        none = [None] * len(queries)
        if not self._budget_bytes:
            return Recalled(self, queries, none, none)
        scope = repr((self._number(engine), caller.key_name)).encode()
        nbytes = sum(_content(query).nbytes for query in queries)
        if nbytes <= BYTES_HASHED_AT_ONCE:
            keys = _keys(queries, scope)
        else:
            keys = await self._parsers.run(caller.turn(), nbytes, _keys, queries, scope)
        known = [None if key is None else self._known(key) for key in keys]
        recalled = Recalled(self, queries, keys, known)
        answers = [answer for answer in known if answer is not None]
        self._observer.answers_recalled(answers, missed=len(keys) - keys.count(None) - len(answers))
        return recalled

    def keep(self, key: bytes, answer: AnyAnswer) -> None:
        """Takes an answer, if there is room for it, and drops others for it."""
        own = kept(answer)
        size = answer_nbytes(own)
        if key in self._answers or size > self._budget_bytes:
            return
        while self.nbytes + size > self._budget_bytes:
            _, (_, dropped) = self._answers.popitem(last=False)
            self.nbytes -= dropped
        self._answers[key] = own, size
        self.nbytes += size

    def _known(self, key: bytes) -> AnyAnswer | None:
        if key not in self._answers:
            return None
        self._answers.move_to_end(key)
        return self._answers[key][0]

    def _number(self, engine: ServingEngine) -> int:
        """The number of an engine. A new one begins a new cache: those before it are on their way out."""
        for known, number in self._engines:
            if known() is engine:
                return number
        self._answers.clear()
        self.nbytes = 0
        self._num_engines += 1
        alive = [one for one in self._engines if one[0]() is not None]
        self._engines = [*alive, (weakref.ref(engine), self._num_engines)]
        return self._num_engines


def _keys(queries: Sequence[AnyQuery], scope: bytes) -> list[bytes | None]:
    """The hash of everything that each answer depends on: nobody can find two queries that have the same."""
    own = [query for query in queries if _depends_on_nothing_else(query)]
    # One image may be asked about once for each task.
    contents = {id(content): content for content in map(_content, own)}
    digests = {number: hashlib.sha256(_bytes(content)).digest() for number, content in contents.items()}
    keys = {id(query): _key(query, scope, digests[id(_content(query))]) for query in own}
    return [keys.get(id(query)) for query in queries]


def _key(query: AnyQuery, scope: bytes, digest: bytes) -> bytes:
    content = _content(query)
    asked = (query.candidates, query.embeds, query.mode, content.dtype, tuple(content.shape))
    return hashlib.sha256(digest + scope + repr(asked).encode()).digest()


def _bytes(content: Tensor) -> memoryview:
    return content.contiguous().numpy().data


def _depends_on_nothing_else(query: AnyQuery) -> bool:
    placed = isinstance(query, TextQuery) and query.places is not None
    return query.pool is None and query.priors is None and not placed


def _content(query: AnyQuery) -> Tensor:
    return query.pixels if isinstance(query, Query) else query.words
