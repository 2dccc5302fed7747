"""What a service knows of an engine and of where engines come from, and nothing else.

    engine = source.load(frozenset(), previous=None)  # source: EngineSource, engine: ServingEngine
    report = engine.classify_batch([Query(pixels)])

Queues, protocols, metrics, gRPC and Ray are written against these; `engine.engine.Engine` and
`engine.source.StoreSource` are the ones that serve a store, and a test may bring twenty lines of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from mass_serve.engine.answers import BatchReport
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.engine.queries import AnyQuery
from mass_serve.inputs.texts import TextTokenizer
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.router import ModeName


class DeviceLostError(RuntimeError):
    """The device is gone: no later batch of this process can be answered either."""


class SetCacheFigures(Protocol):
    """Holds what an engine counts of its cache of expert sets. Any thread may read it."""

    @property
    def hits(self) -> int:
        """Expert sets that were found ready."""

    @property
    def misses(self) -> int:
        """Expert sets that had to be computed."""

    @property
    def used(self) -> Mapping[str, int]:
        """Segments that were computed, by the form of their set, one of `engine.set_cache.FORMS`."""

    @property
    def nbytes(self) -> int:
        """Bytes of the sets that are kept now."""


class ResidentTaskFigures(Protocol):
    """Holds what an engine counts of the weights of tasks in memory. Any thread may read it."""

    @property
    def hits(self) -> int:
        """Uses of a task whose weights were in memory."""

    @property
    def misses(self) -> int:
        """Uses of a task whose weights had to be read first."""

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that are in memory now."""


class ServingEngine(Protocol):
    """An engine in service. One thread calls `classify_batch`; any thread may read the rest."""

    @property
    def store_revision(self) -> str:
        """The revision of the store that was loaded."""

    @property
    def tasks(self) -> Mapping[str, TaskEntry]:
        """The tasks that are served, by name, in the store's order."""

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """The named groups of tasks: of each those that are served, which may be none."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """The tasks of the store that are not served."""

    @property
    def preprocessing(self) -> ImagePreprocessor:
        """How an image becomes the pixels of a `Query`. Raises StoreError where the store reads texts."""

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """How a text becomes the words of a `TextQuery`; None where the store reads images."""

    @property
    def modes(self) -> tuple[ModeName, ...]:
        """The modes that a query may ask for; the first is that of one that does not say."""

    @property
    def gives_residuals(self) -> bool:
        """Tells whether every routed answer has residuals."""

    @property
    def nbytes(self) -> Mapping[str, int]:
        """The memory of the tensors that stay on the device, by kind."""

    @property
    def set_cache(self) -> SetCacheFigures:
        """The figures of its cache of expert sets."""

    @property
    def resident_tasks(self) -> ResidentTaskFigures:
        """The figures of the weights of tasks in memory."""

    def prefetch(self, tasks: Collection[str]) -> None:
        """Begins to make these tasks ready and returns at once. Any thread may call it, with any names."""

    def classify_batch(self, queries: Sequence[AnyQuery]) -> BatchReport:
        """Answers all queries, in their order.

        Raises ValueError for a query that does not fit the store, and whatever the device raises:
        DeviceLostError where it will never answer again.
        """


class EngineSource(Protocol):
    """Where engines come from."""

    def revision(self) -> str:
        """The revision that `load` would load now. Raises StoreError where that cannot be told."""

    def load(self, without: frozenset[str], previous: ServingEngine | None) -> ServingEngine:
        """Loads an engine without some of the tasks; what did not change may be shared with `previous`.

        Raises StoreError, and ValueError for options that do not fit the store.
        """

    def next(self) -> EngineSource:
        """Where engines of the store's next revision come from; while it has none, of the store itself."""
