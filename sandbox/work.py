"""What a pool knows of its jobs: of those that wait, of those that run, and of the lanes that they are in."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

from mass_serve.sandbox.bounds import Belonging, Bounds
from mass_serve.sandbox.messages import Buffer, Job


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a process is told to do."""

    function: int  # as an index of the pool's functions
    data: Buffer
    options: bytes
    bounds: Bounds

    def job(self, number: int) -> Job:
        """Returns it as the process is told of it."""
        sizes = len(self.data), self.bounds.result_bytes, self.bounds.memory_bytes
        return Job(number, self.function, self.options, *sizes, self.bounds.cpu_seconds)


@dataclass(eq=False, slots=True)
class Work:
    """A job and whoever waits for it."""

    step: Step
    needs: Belonging | None
    lane: str
    turn: Any  # by which its queue orders it
    cost: float
    result: asyncio.Future[bytearray]
    since: float
    waits: bool = True


@dataclass(eq=False, slots=True)
class Running:
    """A job in a process, or about to be."""

    work: Work
    steps: deque[Step]  # what is to be done still, the first of it now; the last one has the result
    started: float
    number: int = 0  # of the step
    timer: asyncio.TimerHandle | None = None

    @property
    def step(self) -> Step:
        """Returns what the process does now."""
        return self.steps[0]

    def ends_by(self, timer: asyncio.TimerHandle | None) -> None:
        """Takes another timer for the one there is."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer


class WorkQueue(Protocol):
    """The order in which the jobs of a lane are taken; what a turn is, the queue alone knows."""

    def push(self, turn: Any, item: Work, cost: float) -> None:
        """Takes a job."""

    def remove(self, turn: Any, item: Work) -> object:
        """Lets go of a job that waits; nobody looks at what is returned."""

    def pop(self) -> tuple[Any, Work] | None:
        """Returns the next job and its turn; None where none waits."""


class FirstCome:
    """Jobs in the order in which they came, whatever their turns are."""

    def __init__(self) -> None:
        self._waiting: dict[Work, Any] = {}

    def push(self, turn: Any, item: Work, cost: float) -> None:  # noqa: ARG002 - as of every queue
        """Takes a job."""
        self._waiting[item] = turn

    def remove(self, turn: Any, item: Work) -> None:  # noqa: ARG002
        """Lets go of a job that waits."""
        del self._waiting[item]

    def pop(self) -> tuple[Any, Work] | None:
        """Returns the job that came first, and its turn; None where none waits."""
        if not self._waiting:
            return None
        item = next(iter(self._waiting))
        return self._waiting.pop(item), item


@dataclass(eq=False)
class Lane:
    """So many jobs at once, and those that wait to be among them."""

    most: int
    queue: WorkQueue
    running: int = 0
