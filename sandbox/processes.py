"""Worker processes, of which as many are kept as are wanted: started, heard, and replaced when they end.

    processes = Processes(lambda: Worker(functions, shared_bytes), ready=..., heard=..., gone=...)
    processes.start(asyncio.get_running_loop(), 3)

All of it happens on one event loop's thread, where nothing but `close` waits for a process, not even for one
to die.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from mass_serve.sandbox.bounds import Reason
from mass_serve.sandbox.messages import Kind, Reply, WrongMessageError
from mass_serve.sandbox.worker import Worker

# How long a process may take to start, and one that closed its socket to end.
START_SECONDS = 60.0
END_SECONDS = 1.0
POLL_SECONDS = 0.002
# After a process that did not start, before the next is tried.
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Processes:
    """Keeps as many processes as are wanted. Every method belongs to the event loop's thread."""

    def __init__(
        self,
        make: Callable[[], Worker],
        *,
        ready: Callable[[Worker], None],
        heard: Callable[[Worker, Reply], None],
        gone: Callable[[Worker, Reason], None],
        none_starts: Callable[[], None],
    ) -> None:
        """Starts nothing yet. `make` starts a process, and raises OSError where none can be started.

        `ready` is told of a process that can work, `heard` of each of its replies, which it refuses with
        WrongMessageError, and `gone` of one that ended or was ended, and why. `none_starts` is told when no
        process can be started and there is none.
        """
        self._make = make
        self._ready, self._heard, self._gone, self._none_starts = ready, heard, gone, none_starts
        self._all: list[Worker] = []
        self._ending: list[Worker] = []
        self._wanted = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._told_that_none_starts = False
        self.any_was_ready = False

    def start(self, loop: asyncio.AbstractEventLoop, wanted: int) -> None:
        """Starts so many processes on this event loop."""
        self._loop = loop
        self.want(wanted)

    def want(self, number: int) -> None:
        """Starts processes until there are so many; where there are more they stay."""
        self._wanted = number
        while self._loop is not None and self._retry is None and len(self._all) < self._wanted:
            try:
                worker = self._make()
            except (OSError, MemoryError) as error:
                self._start_failed(str(error) or "no memory is left")
                return
            self._all.append(worker)
            self._loop.add_reader(worker.channel, self._hear, worker)
            self._loop.call_later(START_SECONDS, self._give_up_unready, worker)

    def give_up(self, worker: Worker, reason: Reason) -> None:
        """Ends a process and replaces it."""
        if worker in self._all:
            self._stop_listening(worker)
            worker.kill()
            self._replace(worker, reason)

    def close(self) -> None:
        """Ends all processes, whatever they do."""
        if self._retry is not None:
            self._retry.cancel()
        for worker in self._all:
            self._stop_listening(worker)
            worker.kill()
        self._loop = None
        for worker in (*self._all, *self._ending):
            worker.close()
        self._all.clear()

    def _start_failed(self, why: str) -> None:
        """Tries again in a while, and tells once why no process starts."""
        assert self._loop is not None

        def retry() -> None:
            self._retry = None
            self.want(self._wanted)

        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_SECONDS, retry)
        if not self._told_that_none_starts:
            self._told_that_none_starts = True
            log.error("worker processes do not start, images cannot be decoded", error=why)
        if not any(worker.ready for worker in self._all):
            self._none_starts()

    def _give_up_unready(self, worker: Worker) -> None:
        if not worker.ready:
            self.give_up(worker, "wall")

    def _stop_listening(self, worker: Worker) -> None:
        assert self._loop is not None
        self._loop.remove_reader(worker.channel)

    def _hear(self, worker: Worker) -> None:
        """Takes a message of a process, which may be lying or ending."""
        try:
            message = worker.hear()
        except BlockingIOError:
            return
        if not message:
            self._stop_listening(worker)
            self._find_out_why(worker, time.monotonic() + END_SECONDS)
            return
        try:
            reply = Reply.unpacked(message)
            if reply.kind is Kind.READY and not worker.ready:
                worker.is_ready()
                self.any_was_ready, self._told_that_none_starts = True, False
                self._ready(worker)
            else:
                self._heard(worker, reply)
        except WrongMessageError:
            self.give_up(worker, "crash")

    def _find_out_why(self, worker: Worker, until: float) -> None:
        """Looks for the end of a process whose socket is closed, and ends one that goes on."""
        if worker not in self._all or self._loop is None:
            return
        reason = worker.end()
        if reason is None and time.monotonic() < until:
            self._loop.call_later(POLL_SECONDS, self._find_out_why, worker, until)
            return
        worker.kill()
        self._replace(worker, reason or "crash")

    def _replace(self, worker: Worker, reason: Reason) -> None:
        words = worker.last_words()
        self._all.remove(worker)
        self._ending.append(worker)
        self._collect(worker)
        self._gone(worker, reason)
        if worker.ready:
            self.want(self._wanted)
        else:
            self._start_failed(words or reason)

    def _collect(self, worker: Worker) -> None:
        """Takes the exit status of a process once it has ended, which may take the kernel a while."""
        if self._loop is None:
            return
        if worker.end() is None:
            self._loop.call_later(POLL_SECONDS, self._collect, worker)
        else:
            self._ending.remove(worker)
            worker.close()
