"""Watches a server from a process of its own: `python -m benchmarks.hostile.watcher PLAN`.

A prober asks for /livez and good neighbours have images classified, each on a new connection and whether or
not earlier ones were answered, so that a server that stands still for four seconds is late for all that was
due in them. The memory of the server and of its child processes is added up meanwhile. Ends when standard
input is closed, and prints a `Journal`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from benchmarks.hostile.wire import ask, post, request

PROBES_SECONDS = 0.025
NEIGHBOURS_SECONDS = 0.5
MEMORY_SECONDS = 0.05
# Attackers come from 127.0.0.1; on Linux all of 127.0.0.0/8 is this machine.
PROBER, SAME_ADDRESS, OTHER_ADDRESS = "127.0.0.3", "127.0.0.1", "127.0.0.2"
LONGEST_WAIT = 40.0
# How long a request may still be on its way when the watching ends; its age counts then, and is more than any
# attack allows.
LAST_WAIT = 6.0


@dataclass(frozen=True)
class Plan:
    """Whom to watch, and the image that neighbours send."""

    port: int
    pid: int
    picture: str


@dataclass
class Sample:
    """A request: when it was sent (`time.monotonic`), how long it took, and what came back."""

    sent: float
    seconds: float
    status: int


@dataclass
class Journal:
    """Everything that was seen. `lags`: seconds by which this process itself was late at its own clock."""

    probes: list[Sample] = field(default_factory=list)
    neighbours: list[Sample] = field(default_factory=list)  # another address than the attacker's
    mates: list[Sample] = field(default_factory=list)  # the attacker's own address
    memory: list[tuple[float, int]] = field(default_factory=list)
    lags: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: bytes) -> Journal:
        """Reads what `main` printed."""
        found = json.loads(text)
        samples = {
            name: [Sample(**sample) for sample in found[name]] for name in ("probes", "neighbours", "mates")
        }
        return cls(
            **samples,
            memory=[tuple(pair) for pair in found["memory"]],
            lags=[tuple(pair) for pair in found["lags"]],
        )


class Watcher:
    """Carries out a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.stopped = asyncio.Event()
        self.journal = Journal()

    async def run(self) -> None:
        """Watches until stopped."""
        journal, classify = self.journal, post("/v1/classify", Path(self._plan.picture).read_bytes())
        beside = threading.Thread(target=self._add_memory_up, daemon=True)
        beside.start()
        async with asyncio.TaskGroup() as group:
            for samples, data, source, every in (
                (journal.probes, request("GET", "/livez"), PROBER, PROBES_SECONDS),
                (journal.neighbours, classify, OTHER_ADDRESS, NEIGHBOURS_SECONDS),
                (journal.mates, classify, SAME_ADDRESS, NEIGHBOURS_SECONDS),
            ):
                group.create_task(self._ask_regularly(samples, data, source, every))
        beside.join()

    async def _ask_regularly(self, samples: list[Sample], data: bytes, source: str, every: float) -> None:
        due, asked = time.monotonic(), set[asyncio.Task[None]]()
        while not self.stopped.is_set():
            due += every
            await asyncio.sleep(due - time.monotonic())
            if source == PROBER:
                self.journal.lags.append((due, time.monotonic() - due))
            asked.add(asyncio.ensure_future(self._ask_once(samples, data, source)))
        _, late = await asyncio.wait(asked, timeout=LAST_WAIT)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _ask_once(self, samples: list[Sample], data: bytes, source: str) -> None:
        sample = Sample(time.monotonic(), 0.0, -1)
        samples.append(sample)
        try:
            sample.status = (await ask(self._plan.port, data, source=source, timeout=LONGEST_WAIT)).status
        finally:
            sample.seconds = time.monotonic() - sample.sent

    def _add_memory_up(self) -> None:
        while not self.stopped.is_set():
            with suppress(psutil.NoSuchProcess):
                self.journal.memory.append((time.monotonic(), resident(self._plan.pid)))
            time.sleep(MEMORY_SECONDS)


def resident(pid: int) -> int:
    """Bytes of memory of a process and its children. Raises psutil.NoSuchProcess where it is gone."""
    process = psutil.Process(pid)
    return sum(map(_resident, [process, *process.children(recursive=True)]))


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        found: int = process.memory_info().rss
        return found
    return 0


async def _watch(plan: Plan, until: Callable[[], Awaitable[object]]) -> Journal:
    watcher = Watcher(plan)
    running = asyncio.ensure_future(watcher.run())
    print("watching", flush=True)
    await until()
    watcher.stopped.set()
    await running
    return watcher.journal


async def _end_of_input() -> None:
    """Waits in a thread that may be left behind."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        os.read(0, 1)
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()


def main() -> None:
    """The command."""
    journal = asyncio.run(_watch(Plan(**json.loads(sys.argv[1])), _end_of_input))
    print(json.dumps(asdict(journal)))


if __name__ == "__main__":
    main()
