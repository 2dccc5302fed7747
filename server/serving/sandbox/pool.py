"""Worker processes and the work that waits for them, driven by the event loop.

    pool = SandboxPool([DECODE], lanes={"small": 2}, shared_bytes=1 << 26)  # "package.module:function"
    result = await pool.submit(DECODE, data, options, lane="small", turn=turn, cost=0.01, bounds=bounds)

A lane is a number of jobs that may run at once, and a queue in fair order; every process may work for every
lane. One process more than what runs is kept ready, so that one that ends is replaced at once.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mass_serve.server.serving.fair_queue import FairQueue, Turn
from mass_serve.server.serving.sandbox.bounds import (
    Bounds,
    ExceededError,
    MemoryShortError,
    Reason,
    RefusedError,
    SandboxError,
)
from mass_serve.server.serving.sandbox.messages import (
    Buffer,
    Job,
    Kind,
    Reply,
    WrongMessageError,
    result_start,
)
from mass_serve.server.serving.sandbox.worker import PIECE, Worker

SPARES = 1
# How long a process may take to start, and one that closed its socket to end.
START_SECONDS = 60.0
END_SECONDS = 1.0
POLL_SECONDS = 0.002
# After a process that did not start, before the next is tried.
RETRY_SECONDS = 1.0
# A job that nobody waits for any more may run on for so long; its process is replaced then.
ABANDONED_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class _Work:
    """A job and whoever waits for it."""

    function: int
    data: Buffer
    options: bytes
    bounds: Bounds
    lane: str
    turn: Turn
    cost: float
    result: asyncio.Future[bytearray]


@dataclass(eq=False, slots=True)
class _Running:
    """A job in a process, or about to be."""

    work: _Work
    number: int
    started: float
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class _Lane:
    most: int
    queue: FairQueue[_Work]
    running: int = 0


@dataclass(eq=False)
class _Processes:
    """All processes, apart from the pool so that they can be ended when nobody has it any more."""

    all: list[Worker] = field(default_factory=list)

    def close(self) -> None:
        for worker in self.all:
            worker.kill()
        for worker in self.all:
            worker.close()
        self.all.clear()


class SandboxPool:
    """Processes that work on what callers send. All methods but `close` belong to one event loop's thread."""

    def __init__(
        self,
        functions: Sequence[str],
        lanes: Mapping[str, int],
        shared_bytes: int,
        replaced: Callable[[Reason], None] = lambda _: None,
        took: Callable[[str, float, float], None] = lambda _lane, _cost, _seconds: None,
    ) -> None:
        """Starts nothing yet. Each of the functions is named as "module:function".

        `replaced` is told of each process that ended, and why;
        `took` is told of each job that was done: its lane, its cost, and the seconds for which it ran.
        """
        self._functions = tuple(functions)
        self._lanes = {name: _Lane(most, FairQueue(time.monotonic)) for name, most in lanes.items()}
        self._shared_bytes = shared_bytes
        self._replaced = replaced
        self._took = took
        self._processes = _Processes()
        self._idle: list[Worker] = []
        self._busy: dict[Worker, _Running] = {}
        self._least = next(iter(self._lanes.values())).most + SPARES
        self._most = sum(lane.most for lane in self._lanes.values()) + SPARES
        self._numbers = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        weakref.finalize(self, self._processes.close)

    @property
    def busy(self) -> bool:
        """Tells whether a job is running."""
        return bool(self._busy)

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest job that runs; 0 without one."""
        now = time.monotonic()
        return max((now - running.started for running in list(self._busy.values())), default=0.0)

    def waiting(self, lane: str) -> int:
        """Returns how many jobs wait in a lane."""
        return len(self._lanes[lane].queue)

    def start(self) -> None:
        """Starts the processes for the running event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            for worker in self._processes.all:
                self._listen(worker)
        self._start_missing()

    def submit(
        self,
        function: str,
        data: Buffer,
        options: bytes = b"",
        *,
        lane: str,
        turn: Turn,
        cost: float,
        bounds: Bounds,
    ) -> asyncio.Future[bytearray]:
        """Queues a job. Its future has the result, or a SandboxError; cancelled, it leaves the queue."""
        if self._loop is not asyncio.get_running_loop() or not self._processes.all:
            self.start()
        result = asyncio.get_running_loop().create_future()
        work = _Work(self._functions.index(function), data, options, bounds, lane, turn, cost, result)
        if self._closed:
            result.set_exception(MemoryShortError("the pool is closed"))
            return result
        queue = self._lanes[lane].queue
        queue.push(turn, work, cost)
        result.add_done_callback(lambda done: self._abandon(work) if done.cancelled() else None)
        self._fill()
        return result

    def close(self) -> None:
        """Ends all processes, whatever they do; it needs no thread. Any thread may call it."""
        self._closed = True
        loop, self._loop = self._loop, None
        for worker in self._processes.all:
            worker.kill()
        if loop is None or loop.is_closed() or not loop.is_running():
            self._processes.close()
        else:
            loop.call_soon_threadsafe(self._leave, loop)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        for worker in self._processes.all:
            loop.remove_reader(worker.channel)
        for running in self._busy.values():
            if running.timer is not None:
                running.timer.cancel()
            running.work.result.cancel()
        for lane in self._lanes.values():
            while (taken := lane.queue.pop()) is not None:
                taken[1].result.cancel()
        if self._retry is not None:
            self._retry.cancel()
        self._busy.clear()
        self._idle.clear()
        self._processes.close()

    # Processes

    def _start_missing(self) -> None:
        """Starts processes until there are as many as are wanted now."""
        wanted = min(self._most, max(self._least, len(self._busy) + SPARES))
        while not self._closed and self._retry is None and len(self._processes.all) < wanted:
            try:
                worker = Worker(self._functions, self._shared_bytes)
            except OSError:
                self._retry_later()
                return
            self._processes.all.append(worker)
            self._listen(worker)
            self._running_loop.call_later(START_SECONDS, self._give_up_unready, weakref.ref(worker))

    def _retry_later(self) -> None:
        """Tries again in a while; whoever waits learns it now, if there is no process at all."""

        def retry() -> None:
            self._retry = None
            self._start_missing()

        if self._retry is None:
            self._retry = self._running_loop.call_later(RETRY_SECONDS, retry)
        if not any(worker.ready for worker in self._processes.all):
            for lane in self._lanes.values():
                while (taken := lane.queue.pop()) is not None:
                    _fail(taken[1], MemoryShortError("no worker process can be started"))

    @staticmethod
    def _give_up_unready(reference: weakref.ref[Worker]) -> None:
        worker = reference()
        if worker is not None and not worker.ready:
            worker.kill()

    @property
    def _running_loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None
        return self._loop

    def _listen(self, worker: Worker) -> None:
        self._running_loop.add_reader(worker.channel, self._hear, worker)

    def _hear(self, worker: Worker) -> None:
        """Takes a message of a process, which may be lying or ending."""
        try:
            message = worker.hear()
        except BlockingIOError:
            return
        if not message:
            self._running_loop.remove_reader(worker.channel)
            self._ended(worker, time.monotonic() + END_SECONDS)
            return
        try:
            self._take(worker, Reply.unpacked(message))
        except (WrongMessageError, OSError):
            self._running_loop.remove_reader(worker.channel)
            worker.kill()
            self._replace(worker, "crash")

    def _take(self, worker: Worker, reply: Reply) -> None:
        """Acts on a reply. Raises WrongMessageError for one that cannot be the answer to what was asked."""
        running = self._busy.get(worker)
        if reply.kind is Kind.READY and not worker.ready:
            worker.ready = True
            self._idle.append(worker)
            self._fill()
            return
        if running is None or running.number != reply.number or reply.kind is Kind.READY:
            raise WrongMessageError("nothing of the kind was asked")
        if reply.kind in (Kind.OVER_MEMORY, Kind.MEMORY_SHORT):
            short = reply.kind is Kind.MEMORY_SHORT
            self._running_loop.remove_reader(worker.channel)
            worker.kill()
            self._replace(worker, "memory", MemoryShortError("memory is short") if short else None)
            return
        if reply.kind is Kind.REFUSED:
            self._free(worker, running)
            kind, _, text = reply.words.decode("utf-8", "replace").partition("\n")
            _fail(running.work, RefusedError(kind, text))
        else:
            self._read_result(worker, running, reply.result_bytes)
        self._fill()

    def _read_result(self, worker: Worker, running: _Running, nbytes: int) -> None:
        if nbytes > running.work.bounds.result_bytes:
            raise WrongMessageError("the result is longer than was allowed")
        result, start = bytearray(nbytes), result_start(len(running.work.data))
        if nbytes <= PIECE:
            worker.read(memoryview(result), start)
            self._finish(worker, running, result)
            return

        def read_from(position: int) -> None:
            if self._busy.get(worker) is not running:
                return
            try:
                worker.read(memoryview(result)[position : position + PIECE], start + position)
            except OSError:
                worker.kill()
                return
            if position + PIECE < nbytes:
                self._running_loop.call_soon(read_from, position + PIECE)
            else:
                self._finish(worker, running, result)
                self._fill()

        read_from(0)

    def _finish(self, worker: Worker, running: _Running, result: bytearray) -> None:
        self._free(worker, running)
        # Not of one that was refused or ended: whoever sends such would make all seem slow.
        self._took(running.work.lane, running.work.cost, time.monotonic() - running.started)
        if not running.work.result.done():
            running.work.result.set_result(result)

    def _free(self, worker: Worker, running: _Running) -> None:
        """Takes a process back from a job."""
        self._done(worker, running)
        touched = result_start(len(running.work.data)) + running.work.bounds.result_bytes
        if touched > PIECE:
            worker.give_back(touched)
        self._idle.append(worker)

    def _done(self, worker: Worker, running: _Running) -> None:
        if running.timer is not None:
            running.timer.cancel()
        del self._busy[worker]
        self._lanes[running.work.lane].running -= 1

    def _ended(self, worker: Worker, until: float) -> None:
        """Looks for the end of a process whose socket is closed, and ends one that goes on."""
        if worker not in self._processes.all:
            return
        reason = worker.end()
        if reason is None and time.monotonic() < until:
            self._running_loop.call_later(POLL_SECONDS, self._ended, worker, until)
        else:
            self._replace(worker, reason or "crash")

    def _replace(self, worker: Worker, reason: Reason, error: SandboxError | None = None) -> None:
        """Ends the job of a process that is no more, and starts another."""
        if worker not in self._processes.all:
            return
        self._processes.all.remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        running = self._busy.get(worker)
        if running is not None:
            self._done(worker, running)
            short = reason == "memory" and error is None and not worker.killed
            _fail(running.work, error or (MemoryShortError("killed") if short else ExceededError(reason)))
        worker.close()
        self._replaced(reason)
        if worker.ready:
            self._start_missing()
        else:
            self._retry_later()
        self._fill()

    # Jobs

    def _fill(self) -> None:
        """Gives the processes that are idle what is next, lane by lane."""
        for lane in self._lanes.values():
            while self._idle and lane.running < lane.most and lane.queue:
                taken = lane.queue.pop()
                if taken is not None:
                    self._begin(lane, taken[1])
        if not self._idle:
            self._start_missing()

    def _begin(self, lane: _Lane, work: _Work) -> None:
        worker = self._idle.pop()
        self._numbers = (self._numbers + 1) & 0xFFFFFFFF
        running = self._busy[worker] = _Running(work, self._numbers, time.monotonic())
        lane.running += 1
        running.timer = self._running_loop.call_later(
            work.bounds.wall_seconds, self._out_of_time, worker, running
        )
        if len(work.data) <= PIECE:
            worker.write(work.data, 0)
            self._tell(worker, running)
        else:
            self._write_from(worker, running, 0)

    def _write_from(self, worker: Worker, running: _Running, position: int) -> None:
        """Copies a piece, so that others have their turn between two of them."""
        if self._busy.get(worker) is not running:
            return
        data = memoryview(running.work.data)
        worker.write(data[position : position + PIECE], position)
        if position + PIECE < len(data):
            self._running_loop.call_soon(self._write_from, worker, running, position + PIECE)
        else:
            self._tell(worker, running)

    def _tell(self, worker: Worker, running: _Running) -> None:
        work, bounds = running.work, running.work.bounds
        sizes = len(work.data), bounds.result_bytes, bounds.memory_bytes
        job = Job(running.number, work.function, work.options, *sizes, bounds.cpu_seconds)
        try:
            worker.tell(job)
        except OSError:
            worker.kill()  # its end is noticed on the socket

    def _out_of_time(self, worker: Worker, running: _Running) -> None:
        if self._busy.get(worker) is running:
            self._running_loop.remove_reader(worker.channel)
            worker.kill()
            self._replace(worker, "wall")

    def _abandon(self, work: _Work) -> None:
        """Lets go of a job that nobody waits for: at once where it waits, soon where it runs."""
        lane = self._lanes[work.lane]
        for left in lane.queue.discard(work.turn):
            if left is not work:
                lane.queue.push(left.turn, left, left.cost)
        for worker, running in self._busy.items():
            if running.work is work and running.timer is not None:
                running.timer.cancel()
                running.timer = self._running_loop.call_later(
                    ABANDONED_SECONDS, self._out_of_time, worker, running
                )


def _fail(work: _Work, error: SandboxError) -> None:
    if not work.result.done():
        work.result.set_exception(error)
