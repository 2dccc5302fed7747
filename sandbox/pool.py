"""Work that callers cause, done in worker processes, and what of it waits.

    pool = SandboxPool([DECODE], lanes={"small": 2}, shared_bytes=1 << 26)  # "package.module:function"
    pool.start()
    result = await pool.submit(DECODE, data, options, lane="small", cost=0.01, bounds=bounds)

A lane is a number of jobs that may run at once, and a queue; every process may work for every
lane. One process more than what runs is kept ready, so that one that ends is replaced at once. A job that
needs a belonging goes to a process that has it, or to one that is given it first.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mass_serve.sandbox.bounds import (
    Belonging,
    Bounds,
    ExceededError,
    MemoryShortError,
    Reason,
    RefusedError,
    SandboxError,
)
from mass_serve.sandbox.messages import (
    Buffer,
    Kind,
    Reply,
    WrongMessageError,
    result_start,
)
from mass_serve.sandbox.processes import Processes
from mass_serve.sandbox.work import FirstCome, Lane, Running, Step, Work, WorkQueue
from mass_serve.sandbox.worker import PIECE, Worker

SPARES = 1
# A job that nobody waits for any more may run on for so long; its process is replaced then.
ABANDONED_SECONDS = 1.0


class SandboxPool:
    """Queues and runs jobs. Every method belongs to the thread of the event loop that it was started on."""

    def __init__(
        self,
        functions: Sequence[str],
        lanes: Mapping[str, int],
        shared_bytes: int,
        replaced: Callable[[Reason], None] = lambda _: None,
        took: Callable[[str, float, float], None] = lambda _lane, _cost, _seconds: None,
        queue: Callable[[], WorkQueue] = FirstCome,
    ) -> None:
        """Starts nothing yet. Each of the functions is named as "module:function".

        `replaced` is told of each process that ended, and why; `took` of each job that was done: its lane,
        its cost, and the seconds for which it ran. `queue` makes the queue of a lane.
        """
        self._functions = tuple(functions)
        self._lanes = {name: Lane(most, queue()) for name, most in lanes.items()}
        self._replaced = replaced
        self._took = took
        self._processes = Processes(
            lambda: Worker(self._functions, shared_bytes),
            ready=self._is_idle,
            heard=self._hear,
            gone=self._lose,
            none_starts=self._refuse_all,
        )
        self._idle: list[Worker] = []
        self._busy: dict[Worker, Running] = {}
        self._open: dict[Work, None] = {}  # in the order in which they came
        self._least = next(iter(self._lanes.values())).most + SPARES
        self._most = sum(lane.most for lane in self._lanes.values()) + SPARES
        self._numbers = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def works(self) -> bool:
        """Tells whether a process has ever been ready for work."""
        return self._processes.any_was_ready

    def oldest_seconds(self, lanes: Collection[str]) -> float:
        """Returns the age of the oldest job of some lanes, waiting or running; 0 without one."""
        since = (work.since for work in self._open.copy() if work.lane in lanes)
        return time.monotonic() - first if (first := next(since, None)) is not None else 0.0

    def start(self) -> None:
        """Starts the processes for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._processes.start(self._loop, self._least)

    def submit(
        self,
        function: str,
        data: Buffer,
        options: bytes = b"",
        *,
        lane: str,
        turn: Any = None,
        cost: float,
        bounds: Bounds,
        needs: Belonging | None = None,
    ) -> asyncio.Future[bytearray]:
        """Queues a job. Its future has the result, or a SandboxError; cancelled, it leaves at once."""
        result: asyncio.Future[bytearray] = asyncio.get_running_loop().create_future()
        if self._loop is None:
            result.set_exception(MemoryShortError("the processes have ended"))
            return result
        step = Step(self._functions.index(function), data, options, bounds)
        work = Work(step, needs, lane, turn, cost, result, time.monotonic())
        self._open[work] = None
        self._lanes[lane].queue.push(turn, work, cost)
        result.add_done_callback(lambda _: self._leave(work))
        self._fill()
        return result

    def close(self) -> None:
        """Ends all processes, whatever they do; it needs no thread."""
        self._loop = None
        self._processes.close()
        for running in self._busy.values():
            running.ends_by(None)
        for work in list(self._open):
            work.result.cancel()

    def _leave(self, work: Work) -> None:
        """Lets go of a job that has ended, or that nobody waits for any more: it may run on for a moment."""
        del self._open[work]
        if self._loop is None:
            return
        if work.waits:
            self._lanes[work.lane].queue.remove(work.turn, work)
        for worker, running in self._busy.items():
            if running.work is work:
                running.ends_by(self._time_out(ABANDONED_SECONDS, worker, running.number))

    # From the queues to the processes

    def _is_idle(self, worker: Worker) -> None:
        self._idle.append(worker)
        self._fill()

    def _fill(self) -> None:
        """Gives the processes that are idle what is next, lane by lane."""
        for lane in self._lanes.values():
            while self._idle and lane.running < lane.most and (taken := lane.queue.pop()):
                self._begin(lane, taken[1])
        if not self._idle:
            self._processes.want(min(self._most, max(self._least, len(self._busy) + SPARES)))

    def _begin(self, lane: Lane, work: Work) -> None:
        worker = self._idle_one(work.needs)
        steps, needs = deque([work.step]), work.needs
        if needs is not None and worker.kept != needs.name:
            worker.kept = None
            index = self._functions.index(needs.function)
            steps.appendleft(Step(index, needs.content, needs.options, needs.bounds))
        work.waits = False
        lane.running += 1
        running = self._busy[worker] = Running(work, steps, time.monotonic())
        self._start_step(worker, running)

    def _idle_one(self, needs: Belonging | None) -> Worker:
        """Takes an idle process: of several the last one at work, or the last one that has what is needed."""
        fitting = [worker for worker in self._idle if needs is not None and worker.kept == needs.name]
        worker = (fitting or self._idle)[-1]
        self._idle.remove(worker)
        return worker

    def _start_step(self, worker: Worker, running: Running) -> None:
        running.number = self._numbers = (self._numbers + 1) & 0xFFFFFFFF
        running.ends_by(self._time_out(running.step.bounds.wall_seconds, worker, running.number))
        self._write_from(worker, running, 0)

    def _time_out(self, seconds: float, worker: Worker, number: int) -> asyncio.TimerHandle:
        assert self._loop is not None
        return self._loop.call_later(seconds, self._out_of_time, worker, number)

    def _write_from(self, worker: Worker, running: Running, position: int) -> None:
        """Copies a piece of the input, so that others have their turn between two of them."""
        if self._busy.get(worker) is not running or self._loop is None:
            return
        data = memoryview(running.step.data)
        try:
            worker.write(data[position : position + PIECE], position)
        except OSError:
            self._fail(worker, running, MemoryShortError("the input finds no memory"))
            self._processes.give_up(worker, "memory")
            return
        if position + PIECE < len(data):
            self._loop.call_soon(self._write_from, worker, running, position + PIECE)
        else:
            worker.tell(running.step.job(running.number))

    # And back

    def _hear(self, worker: Worker, reply: Reply) -> None:
        """Acts on a reply. Raises WrongMessageError for one that cannot be the answer to what was asked."""
        running = self._busy.get(worker)
        if running is None or running.number != reply.number:
            raise WrongMessageError("nothing of the kind was asked")
        if reply.kind is Kind.DONE:
            self._read_result(worker, running, reply.result_bytes)
        elif reply.kind is Kind.REFUSED:
            kind, _, text = reply.words.decode("utf-8", "replace").partition("\n")
            self._fail(worker, running, RefusedError(kind, text))
            self._free(worker, running)
        elif reply.kind in (Kind.OVER_MEMORY, Kind.MEMORY_SHORT):
            short = reply.kind is Kind.MEMORY_SHORT
            self._fail(worker, running, MemoryShortError("short") if short else ExceededError("memory"))
            self._processes.give_up(worker, "memory")
        else:
            raise WrongMessageError("it was ready before")

    def _read_result(self, worker: Worker, running: Running, nbytes: int) -> None:
        if nbytes > running.step.bounds.result_bytes:
            raise WrongMessageError("the result is longer than was allowed")
        if len(running.steps) > 1:
            self._has_kept(worker, running)
            return
        try:
            self._read_from(worker, running, bytearray(nbytes), 0)
        except MemoryError:
            self._fail(worker, running, MemoryShortError("the result finds no memory"))
            self._free(worker, running)

    def _read_from(self, worker: Worker, running: Running, result: bytearray, position: int) -> None:
        """Copies a piece of the result, so that others have their turn between two of them."""
        if self._busy.get(worker) is not running or self._loop is None:
            return
        piece = memoryview(result)[position : position + PIECE]
        try:
            worker.read(piece, result_start(len(running.step.data)) + position)
        except OSError:
            self._processes.give_up(worker, "crash")
            return
        if position + PIECE < len(result):
            self._loop.call_soon(self._read_from, worker, running, result, position + PIECE)
            return
        if not running.work.result.done():
            running.work.result.set_result(result)
        # Not of one that was refused or ended: whoever sends such would make all seem slow.
        self._took(running.work.lane, running.work.cost, time.monotonic() - running.started)
        self._free(worker, running)

    def _has_kept(self, worker: Worker, running: Running) -> None:
        """Goes on with the job that needed what the process has got, unless nobody waits for it any more."""
        if running.work.needs is not None:
            worker.kept = running.work.needs.name
        if running.work.result.done():
            self._free(worker, running)
        elif self._gives_back(worker, running.steps.popleft()):
            running.started = time.monotonic()
            self._start_step(worker, running)
        else:
            self._fail(worker, running, MemoryShortError("no address space is left"))
            self._processes.give_up(worker, "memory")

    def _free(self, worker: Worker, running: Running) -> None:
        """Takes a process back from a job."""
        self._done(worker, running)
        if self._gives_back(worker, running.step):
            self._is_idle(worker)
        else:
            self._processes.give_up(worker, "memory")  # its memory goes with it

    def _gives_back(self, worker: Worker, step: Step) -> bool:
        """Gives the shared memory of a large job back; False where there is no address space to do so."""
        touched = result_start(len(step.data)) + step.bounds.result_bytes
        try:
            if touched > PIECE:
                worker.give_back(touched)
        except OSError:
            return False
        return True

    def _done(self, worker: Worker, running: Running) -> None:
        if self._busy.pop(worker, None) is running:
            running.ends_by(None)
            self._lanes[running.work.lane].running -= 1

    def _fail(self, worker: Worker, running: Running, error: SandboxError) -> None:
        self._done(worker, running)
        if not running.work.result.done():
            running.work.result.set_exception(error)

    # What goes wrong

    def _out_of_time(self, worker: Worker, number: int) -> None:
        running = self._busy.get(worker)
        if running is not None and running.number == number:
            self._processes.give_up(worker, "wall")

    def _lose(self, worker: Worker, reason: Reason) -> None:
        """Ends the job of a process that is no more."""
        if worker in self._idle:
            self._idle.remove(worker)
        running = self._busy.get(worker)
        abandoned = running is not None and running.work.result.cancelled()
        if running is not None:
            # One that was ended for its memory has answered; otherwise the kernel had none left.
            short = reason == "memory"
            self._fail(worker, running, MemoryShortError("killed") if short else ExceededError(reason))
        if not abandoned:  # else no bound was broken: the caller has hung up
            self._replaced(reason)
        self._fill()

    def _refuse_all(self) -> None:
        """Tells whoever waits that there is no process at all."""
        for work in list(self._open):
            if not work.result.done():
                work.result.set_exception(MemoryShortError("no worker process can be started"))
