"""Whose turn a GPU is: one thread of the process runs passes, captures graphs and waits for them at a time.

    with device_turn(device):
        launch_and_wait()

CUDA forbids any thread to wait for a device while another captures a graph of it, and PyTorch knows one
capture at a time in a process. So whoever launches passes has the turn from the first launch to the last
wait: the thread that answers for a batch, one that loads the next revision for a pass over drawn inputs or a
capture. Turns go to threads in the order in which they asked: one that answers batch after batch keeps
nobody waiting for longer than a batch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


class Turns:
    """A lock that the same thread may take again, given to threads in the order in which they asked."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[int] = deque()  # threads
        self._owner: int | None = None
        self._depth = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until it is this thread's turn, which lasts for the block."""
        thread = threading.get_ident()
        if self._owner != thread:
            self._wait(thread)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                with self._changed:
                    self._owner = None
                    self._changed.notify_all()

    def _wait(self, thread: int) -> None:
        with self._changed:
            self._waiting.append(thread)
            try:
                self._changed.wait_for(lambda: self._owner is None and self._waiting[0] == thread)
                self._owner = thread
            finally:  # also where waiting was interrupted: then the next in line would not be told
                self._waiting.remove(thread)
                self._changed.notify_all()


_TURNS = Turns()  # of the process: PyTorch has one capture in it at a time, whatever the device


def device_turn(device: torch.device) -> AbstractContextManager[None]:
    """Lets this thread alone use the device inside the block; a CPU is everybody's."""
    return _TURNS.turn() if device.type == "cuda" else nullcontext()
