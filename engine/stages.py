"""How long each stage of a batch takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

ENGINE_STAGES = ("first_pass", "route", "second_pass", "heads")


class _Mark(NamedTuple):
    """A moment: of the host, and on a GPU the one at which what was launched before is done."""

    seconds: float
    event: torch.cuda.Event | None


class StageClock:
    """The seconds of each stage of a batch; a stage that is entered again adds up.

    On a GPU nothing waits for a stage's end: events mark it in the stream. The last stage ends with a
    download, which the host waits for: its end is the host's moment, and all events before have happened
    then. The clock is made while the device has nothing to do, so that both times begin together.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begun = self._mark()
        self._stages: list[tuple[str, _Mark, _Mark]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block; on a GPU it ends when the work does, not when it was launched."""
        start = self._mark()
        yield
        self._stages.append((name, start, self._mark()))

    def seconds(self) -> dict[str, float]:
        """The seconds of all stages, once the last of them is over."""
        total = dict.fromkeys(ENGINE_STAGES, 0.0)
        for name, start, end in self._stages[:-1]:
            total[name] += _between(start, end)
        for name, start, end in self._stages[-1:]:
            total[name] += end.seconds - self._begun.seconds - _between(self._begun, start)
        return total

    def _mark(self) -> _Mark:
        if self._device.type != "cuda":
            return _Mark(time.perf_counter(), None)
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return _Mark(time.perf_counter(), event)


def _between(start: _Mark, end: _Mark) -> float:
    if start.event is None or end.event is None:
        return end.seconds - start.seconds
    milliseconds: float = start.event.elapsed_time(end.event)
    return milliseconds / 1e3
