"""The weights of tasks in memory within a byte budget: the least recently used are dropped and read again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from mass_serve.backbone.task_weights import TaskWeights

# Reads the weights of one task again.
ReadTask = Callable[[], TaskWeights]


class ResidentTasks:
    """The weights of tasks by their numbers. Any thread may ask for them.

    With a budget, the least recently used are dropped as others come, and read when they are asked for again.
    What somebody still holds lives on until it is let go. A task that cannot be read again is never dropped,
    and one that is larger than the whole budget is read whenever it is used.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self.hits = 0
        self.misses = 0
        self.nbytes = 0
        self._resident: OrderedDict[int, TaskWeights] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self._read: dict[int, ReadTask] = {}
        self._reading: dict[int, Future[TaskWeights]] = {}
        self._queued: dict[int, Future[None]] = {}  # those that the thread below is to read
        self._dropped: set[int] = set()
        self._ahead: set[int] = set()  # read before anybody asked for them, and not asked for since
        self._changing = threading.Lock()
        self._reader: ThreadPoolExecutor | None = None

    def __contains__(self, task: int) -> bool:
        return task in self._resident

    def put(self, task: int, weights: TaskWeights, nbytes: int, read: ReadTask | None) -> None:
        """Takes the weights of a task, which count `nbytes`. With `read` they may be dropped."""
        with self._changing:
            self._sizes[task] = nbytes
            if read is not None:
                self._read[task] = read
            self._keep(task, weights)

    def take(self, task: int, other: ResidentTasks, theirs: int) -> None:
        """Takes a task of another bank: the same tensors, and where they are read from."""
        weights, size, read = other._resident.get(theirs), other._sizes[theirs], other._read.get(theirs)
        if weights is None:
            assert read is not None  # or it would not have been dropped
            with self._changing:
                self._sizes[task], self._read[task] = size, read
                self._dropped.add(task)
        else:
            self.put(task, weights, size, read)

    def take_dropped(self) -> set[int]:
        """The tasks that were dropped since this was asked last, also those that were read again since."""
        if not self._dropped:
            return set()
        with self._changing:
            dropped, self._dropped = self._dropped, set()
        return dropped

    def size(self, task: int) -> int:
        """The bytes that a task counts, in memory or not."""
        return self._sizes[task]

    def fit(self, tasks: Collection[int]) -> bool:
        """Tells whether the budget has room for these tasks together."""
        return self.budget_bytes is None or sum(self._sizes[task] for task in tasks) <= self.budget_bytes

    def get(self, task: int) -> TaskWeights:
        """Returns the weights of a task, which is read first where it has to be.

        Raises what reading raises.
        """
        with self._changing:
            self._ahead.discard(task)
            if (weights := self._resident.get(task)) is not None:
                self._resident.move_to_end(task)
                self.hits += 1
                return weights
            self.misses += 1
            future, is_own = self._future(task)
            if (queued := self._queued.pop(task, None)) is not None:
                is_own = queued.cancel()  # whoever waits does not wait behind those that nobody asked for
        if is_own:
            self._read_now(task, future)
        return future.result()

    def touch(self, tasks: Collection[int]) -> None:
        """Counts tasks as used whose weights are at hand."""
        with self._changing:
            for task in tasks:
                if task in self._resident:
                    self._resident.move_to_end(task)
                    self._ahead.discard(task)
            self.hits += len(tasks)

    def prefetch(self, tasks: Collection[int]) -> None:
        """Begins to read those of the tasks that are not in memory, on a thread of its own; returns at once.

        Only half of the budget is for tasks that nobody has asked for yet: else those that are read ahead for
        a long queue would drop one another.
        """
        if self.budget_bytes is None:
            return
        with self._changing:
            room = self.budget_bytes // 2 - sum(self._sizes[one] for one in self._ahead)
            for task in tasks:
                if task in self._resident:
                    self._resident.move_to_end(task)
                elif task not in self._reading and self._sizes[task] <= room:
                    room -= self._sizes[task]
                    self._ahead.add(task)
                    future, _ = self._future(task)
                    self._queued[task] = self._thread().submit(self._read_now, task, future)

    def _future(self, task: int) -> tuple[Future[TaskWeights], bool]:
        """What is to become the weights of a task, and whether the caller is the one to read them."""
        if (future := self._reading.get(task)) is not None:
            return future, False
        self._reading[task] = Future()
        return self._reading[task], True

    def _read_now(self, task: int, future: Future[TaskWeights]) -> None:
        try:
            weights = self._read[task]()
        except BaseException as error:  # it is the asking thread's
            with self._changing:
                self._ends_reading(task)
                self._ahead.discard(task)
            future.set_exception(error)
            return
        with self._changing:
            self._ends_reading(task)
            self._keep(task, weights)
        future.set_result(weights)

    def _ends_reading(self, task: int) -> None:
        del self._reading[task]
        self._queued.pop(task, None)

    def _keep(self, task: int, weights: TaskWeights) -> None:
        self._drop(task)
        if task in self._read and not self.fit([task]):
            self._ahead.discard(task)
            self._dropped.add(task)  # at once, and no other in its place
            return
        self._resident[task] = weights
        self.nbytes += self._sizes[task]
        if self.budget_bytes is not None:
            for oldest in [one for one in self._resident if one in self._read]:
                if self.nbytes <= self.budget_bytes:
                    break
                self._drop(oldest)
                self._dropped.add(oldest)

    def _drop(self, task: int) -> None:
        if self._resident.pop(task, None) is not None:
            self.nbytes -= self._sizes[task]
            self._ahead.discard(task)

    def _thread(self) -> ThreadPoolExecutor:
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "read-task")
        return self._reader
