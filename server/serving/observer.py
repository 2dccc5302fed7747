"""What the service and its transports report while they work; `operation.metrics` counts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mass_serve.engine import AnyAnswer, AnyQuestion, BatchReport, Flip, ServingEngine


class ServingObserver(Protocol):
    """Is told what happens, on whatever thread it happens; it must be quick and never raise."""

    def request_in_progress(self) -> AbstractContextManager[None]:
        """The headers of a request have come; the block ends when it is answered or given up."""

    def request_answered(self, protocol: str, status: int, seconds: float) -> None:
        """A request of that protocol was answered, so long after its headers came."""

    def request_rejected(self, reason: str) -> None:
        """A request was refused or given up, for the `reason` of its ServiceError."""

    def stages_took(self, seconds: Mapping[str, float]) -> None:
        """One request spent so many seconds in the stages before its batch."""

    def question_admitted(self, question: AnyQuestion) -> None:
        """A request that asks this has its places in the queue."""

    def tasks_answered(self, tasks: Sequence[str], seconds: float) -> None:
        """One request has its answers, each by a task, so long after its body ended."""

    def inputs_split(self) -> None:
        """The inputs of a request were said to be of one task, and were found to be of several."""

    def stream_began_anew(self) -> None:
        """A stream's inputs contradict what was remembered of it, which is forgotten."""

    def stream_dropped(self) -> None:
        """A stream was forgotten, because there are too many."""

    def batch_ran(self, report: BatchReport, tokens: int) -> None:
        """The engine has answered a batch of so many tokens; of images it has none."""

    def answers_recalled(self, answers: Sequence[AnyAnswer], missed: int) -> None:
        """These answers were known already, and so many that may be kept were not."""

    def engine_loaded(self, engine: ServingEngine, seconds: float) -> None:
        """A load took so long, and this engine is about to take over."""

    def load_failed(self) -> None:
        """An attempt to load the store failed."""

    def shadow_serves(self, revision: str | None) -> None:
        """From now on this is the revision that answers silently; None: there is none."""

    def shadow_compared(self, task: str, found: Flip | None) -> None:
        """The next revision has answered an input too that this task has, and differs so, or not at all."""

    def shadow_dropped(self, inputs: int) -> None:
        """So many inputs found the shadow's queue full."""

    def shadow_failed(self, what: str) -> None:
        """The next revision could not be loaded, or not be asked: "load", "answer" or "no_task"."""

    def connection_dropped(self, reason: str) -> None:
        """A connection was closed before its time, or could not be taken."""

    def worker_replaced(self, reason: str) -> None:
        """A sandboxed worker was replaced: it broke a bound ("cpu", "wall", "memory") or ended ("crash")."""

    def key_used(self, name: str | None) -> None:
        """A request came with the key of that name; None: with none, where none is needed."""

    def rate_limited(self, name: str | None) -> None:
        """A request came with the key of that name, and was more than the key's rate."""

    def wrong_key(self) -> None:
        """A request came with a key that opens nothing."""
