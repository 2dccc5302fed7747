"""The search for tasks, from inputs to planned second passes: the first pass and the router, in two ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from mass_serve.backbone import Batch, Passes
from mass_serve.engine.evidence_search import EvidenceSearch
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.paper_search import PaperSearch
from mass_serve.engine.search_result import SearchResult
from mass_serve.engine.stages import StageClock
from mass_serve.router import PAPER, ModeName, Prior, mode_named


class TaskSearch(Protocol):
    """A first pass and a router of the T routed tasks."""

    @property
    def nbytes(self) -> int:
        """The memory of what it keeps beside the store's weights."""

    def search(
        self,
        samples: Sequence[int],
        inputs: Batch,
        candidates: Tensor,
        prior: Prior | None,
        modes: Sequence[ModeName],
        clock: StageClock,
    ) -> list[SearchResult]:
        """A result for each of n `samples`, which are their rows in the batch.

        `inputs` are the patches [n, L - 1, 3 p p] or words of the samples, and the mask `candidates` [n, T]
        (bool, CPU) says which tasks each may have. Samples of one pool of the prior get the same tasks, but
        where their evidence contradicts that they are of one. `modes` are those of the samples. Times the
        stages `first_pass` and `route`.
        """

    def warm_up(self, inputs: Batch) -> Mapping[int, Batch]:
        """Runs each kind of first pass that a search of those inputs may run, and judges by it.

        Returns, by block, the tokens that second passes may resume with.
        """


def task_search(loaded: LoadedStore, passes: Passes) -> TaskSearch:
    """Builds the task search for the store's mode. Raises ValueError for a mode that there is not."""
    mode = mode_named(loaded.mode)  # a caller may have replaced the mode that `load_store` made sure of
    if not loaded.routed:
        return NoSearch()
    return PaperSearch(loaded, passes) if mode == PAPER else EvidenceSearch(loaded, passes)


class NoSearch:
    """The search of a store whose tasks all classify tokens: there are none to search among."""

    nbytes = 0

    def search(
        self,
        samples: Sequence[int],
        inputs: Batch,  # noqa: ARG002 - as of every search
        candidates: Tensor,  # noqa: ARG002
        prior: Prior | None,  # noqa: ARG002
        modes: Sequence[ModeName],  # noqa: ARG002
        clock: StageClock,  # noqa: ARG002
    ) -> list[SearchResult]:
        raise ValueError(f"{len(samples)} inputs are to be routed, and no task of the store is")

    def warm_up(self, inputs: Batch) -> Mapping[int, Batch]:  # noqa: ARG002 - as of every search
        return {}
