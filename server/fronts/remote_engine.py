"""The engine of a front end: what it is like is known here, and its batches are answered elsewhere."""

from __future__ import annotations

import json
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mass_serve.engine import (
    FORMS,
    AnyAnswer,
    AnyQuery,
    BatchReport,
    ModeName,
    ServingEngine,
    TextQuery,
    TokenClassification,
)
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.inputs.texts import TextTokenizer, Truncation
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.server.fronts.frames import Kind
from mass_serve.server.fronts.link import Link
from mass_serve.server.fronts.query_form import packed


@dataclass(frozen=True)
class TokenizerContent:
    """Holds what a tokenizer is made of."""

    content: bytes
    max_tokens: int
    truncation: Truncation

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> TokenizerContent:
        """Takes it of a tokenizer."""
        return cls(tokenizer.content, tokenizer.max_tokens, tokenizer.truncation)


@dataclass(frozen=True)
class Description:
    """Holds all that a service knows of an engine, and can be sent to another process."""

    handle: int  # by which the front end that it is for asks the engine
    number: int  # counts the engines that have been in service
    store_revision: str
    tasks: Mapping[str, TaskEntry]
    groups: Mapping[str, Sequence[str]]
    left_out: tuple[str, ...]
    preprocessing: ImagePreprocessor | None  # None where the store reads texts
    tokenizer: TokenizerContent | None
    modes: tuple[ModeName, ...]
    gives_residuals: bool

    @classmethod
    def of(cls, engine: ServingEngine, handle: int, number: int) -> Description:
        """Describes an engine."""
        words = engine.tokenizer
        return cls(
            handle=handle,
            number=number,
            store_revision=engine.store_revision,
            tasks=dict(engine.tasks),
            groups={name: tuple(tasks) for name, tasks in engine.groups.items()},
            left_out=tuple(engine.left_out),
            preprocessing=engine.preprocessing if words is None else None,
            tokenizer=None if words is None else TokenizerContent.of(words),
            modes=tuple(engine.modes),
            gives_residuals=engine.gives_residuals,
        )


@dataclass(frozen=True)
class CountedElsewhere:
    """The figures of a cache that the device's process counts and tells of."""

    hits: int = 0
    misses: int = 0
    nbytes: int = 0
    used: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(FORMS, 0))


class RemoteEngine:
    """An engine in another process; a `ServingEngine`."""

    def __init__(
        self, described: Description, link: Link, prefetches: bool, previous: ServingEngine | None = None
    ) -> None:
        """`prefetches` tells whether the device's process drops tasks from memory at all.

        Of the `previous` engine the tokenizer is taken over where it is the same.
        """
        self.described = described
        self.store_revision = described.store_revision
        self.tasks, self.groups, self.left_out = described.tasks, described.groups, described.left_out
        self.modes, self.gives_residuals = described.modes, described.gives_residuals
        self.tokenizer = _tokenizer(described.tokenizer, previous)
        self.nbytes: Mapping[str, int] = {}
        self.set_cache = self.resident_tasks = CountedElsewhere()
        self._link, self._prefetches = link, prefetches
        # Once nobody here asks it any more, it need not be kept there.
        weakref.finalize(self, link.tell, Kind.FORGET, described.handle)

    @property
    def preprocessing(self) -> ImagePreprocessor:
        """How an image becomes pixels. Raises StoreError where the store reads texts."""
        if self.described.preprocessing is None:
            raise StoreError("this store reads texts, and images are asked of it: give one that reads images")
        return self.described.preprocessing

    def prefetch(self, tasks: Collection[str]) -> None:
        """Has the tasks made ready where they are kept."""
        if self._prefetches and tasks:
            self._link.tell(Kind.PREFETCH, self.described.handle, json.dumps(list(tasks)).encode())

    def classify_batch(self, queries: Sequence[AnyQuery]) -> BatchReport:
        """Answers all queries, as the engine does, whose errors are raised here."""
        report: BatchReport = self._link.ask(Kind.BATCH, *packed(queries, self.described.handle))
        if len(report.answers) != len(queries):
            raise ValueError(f"{len(queries)} queries gave {len(report.answers)} answers")
        answers = [_placed(answer, query) for answer, query in zip(report.answers, queries, strict=True)]
        return replace(report, answers=answers)


def _tokenizer(wanted: TokenizerContent | None, previous: ServingEngine | None) -> TextTokenizer | None:
    """Returns the previous engine's where it is the same: all threads wait for seconds for a large one."""
    if wanted is None:
        return None
    before = None if previous is None else previous.tokenizer
    if before is not None and TokenizerContent.of(before) == wanted:
        return before
    return TextTokenizer(wanted.content, wanted.max_tokens, wanted.truncation)


def _placed(answer: AnyAnswer | None, query: AnyQuery) -> AnyAnswer | None:
    """Says of an answer about tokens where in the text they stand, which the device need not know."""
    if isinstance(answer, TokenClassification) and isinstance(query, TextQuery):
        return replace(answer, places=query.places)
    return answer


class RemoteSource:
    """Where the engines of a front end come from: the device's process; an `EngineSource`."""

    def __init__(self, link: Link, prefetches: bool) -> None:
        self._link, self._prefetches = link, prefetches
        self._is_told = False
        self._revision = ""

    def told(self) -> None:
        """The device's process has news: the next load takes what serves there, and changes nothing."""
        self._is_told = True

    def revision(self) -> str:
        """The revision that was served last."""
        return self._revision

    def load(self, without: frozenset[str], previous: ServingEngine | None) -> RemoteEngine:
        """Has the device's process serve the newest revision, without some of the tasks.

        Raises what the load has raised there.
        """
        left_out = frozenset(() if previous is None else previous.left_out)
        told, self._is_told = self._is_told, False
        wanted = {
            "polls": previous is not None and not told,
            "has": previous.described.number if isinstance(previous, RemoteEngine) else 0,
            "unload": sorted(without - left_out),
            "load": sorted(left_out - without),
        }
        described: Description = self._link.ask(Kind.LOAD, json.dumps(wanted).encode())
        self._revision = described.store_revision
        return RemoteEngine(described, self._link, self._prefetches, previous)

    def next(self) -> RemoteSource:
        """The store itself: a next revision is not asked by front ends."""
        return self
