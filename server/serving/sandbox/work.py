"""What a pool knows of its jobs: of those that wait, of those that run, and of the lanes that they are in."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from mass_serve.server.serving.fair_queue import FairQueue, Turn
from mass_serve.server.serving.sandbox.bounds import Belonging, Bounds
from mass_serve.server.serving.sandbox.messages import Buffer, Job


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
    turn: Turn
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


@dataclass(eq=False)
class Lane:
    """So many jobs at once, and those that wait to be among them."""

    most: int
    queue: FairQueue[Work]
    running: int = 0
