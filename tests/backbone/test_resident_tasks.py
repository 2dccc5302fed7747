"""The weights of tasks within a byte budget."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from mass_serve.backbone.resident_tasks import ResidentTasks
from mass_serve.backbone.task_weights import TaskWeights

SIZE = 40
WAIT = 20


class Disk:
    """Where tasks are read from, and which were."""

    def __init__(self, tasks: int) -> None:
        self.weights = {
            task: TaskWeights({}, {}, {"bias": torch.full((10,), float(task))}) for task in range(tasks)
        }
        self.read: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def reader(self, task: int) -> Callable[[], TaskWeights]:
        def read() -> TaskWeights:
            assert self.gate.wait(WAIT)
            self.read.append(task)
            return self.weights[task]

        return read

    def loaded(self, budget_bytes: int | None) -> ResidentTasks:
        """All tasks, put one after the other."""
        tasks = ResidentTasks(budget_bytes)
        for task, weights in self.weights.items():
            tasks.put(task, weights, weights.nbytes(), self.reader(task))
        return tasks


def resident(tasks: ResidentTasks, of: int) -> list[int]:
    return [task for task in range(of) if task in tasks]


def test_without_a_budget_all_stay() -> None:
    disk = Disk(4)
    tasks = disk.loaded(None)
    assert [tasks.get(task) for task in range(4)] == list(disk.weights.values())
    assert (disk.read, tasks.nbytes, tasks.hits, tasks.misses) == ([], 4 * SIZE, 4, 0)


def test_the_least_recently_used_is_dropped_and_read_when_it_is_asked_for() -> None:
    disk = Disk(4)
    tasks = disk.loaded(2 * SIZE)
    assert resident(tasks, 4) == [2, 3]
    assert tasks.get(2) is disk.weights[2]
    assert tasks.get(0) is disk.weights[0]
    assert resident(tasks, 4) == [0, 2]
    assert (disk.read, tasks.nbytes, tasks.hits, tasks.misses) == ([0], 2 * SIZE, 1, 1)


def test_a_task_at_hand_counts_as_used_when_it_is_touched() -> None:
    disk = Disk(3)
    tasks = disk.loaded(2 * SIZE)
    tasks.touch([1])
    tasks.get(0)
    assert resident(tasks, 3) == [0, 1]
    assert tasks.hits == 1


def test_a_task_larger_than_the_budget_is_read_for_each_use() -> None:
    disk = Disk(2)
    tasks = disk.loaded(SIZE - 1)
    assert [tasks.get(1), tasks.get(1)] == [disk.weights[1]] * 2
    assert (disk.read, tasks.nbytes) == ([1, 1], 0)


def test_a_task_larger_than_the_budget_drops_no_other() -> None:
    disk = Disk(2)
    tasks = ResidentTasks(SIZE)
    tasks.put(0, disk.weights[0], SIZE, disk.reader(0))
    tasks.put(1, disk.weights[1], SIZE + 1, disk.reader(1))
    assert tasks.get(1) is disk.weights[1]
    assert resident(tasks, 2) == [0]
    assert (disk.read, tasks.nbytes) == ([1], SIZE)


def test_what_cannot_be_read_again_is_not_dropped() -> None:
    disk = Disk(2)
    tasks = ResidentTasks(SIZE)
    tasks.put(0, disk.weights[0], SIZE, None)
    tasks.put(1, disk.weights[1], SIZE, disk.reader(1))
    assert resident(tasks, 2) == [0]


def test_a_task_is_read_ahead_once_and_is_then_there() -> None:
    disk = Disk(4)
    tasks = disk.loaded(2 * SIZE)
    disk.gate.clear()
    tasks.prefetch([0])
    tasks.prefetch([0])
    found: list[TaskWeights] = []
    asking = threading.Thread(target=lambda: found.append(tasks.get(0)))
    asking.start()
    disk.gate.set()
    asking.join(WAIT)
    assert found == [disk.weights[0]]
    assert disk.read == [0]
    assert resident(tasks, 4) == [0, 3]


def test_tasks_read_ahead_do_not_drop_one_another() -> None:
    disk = Disk(9)
    tasks = disk.loaded(4 * SIZE)
    tasks.prefetch([0, 1, 2, 3])
    for task in (0, 1):
        assert tasks.get(task) is disk.weights[task]
    assert disk.read == [0, 1]
    assert resident(tasks, 9) == [0, 1, 7, 8]


def test_who_asks_does_not_wait_behind_those_that_are_read_ahead() -> None:
    disk = Disk(4)
    tasks = disk.loaded(2 * SIZE)
    tasks.budget_bytes = 8 * SIZE
    behind, begun, gate = disk.weights[1], threading.Event(), threading.Event()

    def held() -> TaskWeights:
        begun.set()
        assert gate.wait(WAIT)
        return disk.weights[0]

    tasks.put(0, disk.weights[0], 100 * SIZE, held)  # is dropped at once, and read for each use
    tasks.budget_bytes = 400 * SIZE
    tasks.prefetch([0, 1])
    assert begun.wait(WAIT)
    assert tasks.get(1) is behind
    gate.set()
    assert tasks.get(0) is disk.weights[0]
    assert disk.read == [1]


def test_a_reading_that_fails_is_told_to_who_asks_and_tried_again() -> None:
    disk = Disk(2)
    tasks = ResidentTasks(SIZE)
    whole = [False]

    def read() -> TaskWeights:
        if not whole[0]:
            raise OSError("the disk is gone")
        return disk.weights[0]

    tasks.put(0, disk.weights[0], SIZE, read)
    tasks.put(1, disk.weights[1], SIZE, disk.reader(1))
    with pytest.raises(OSError, match="the disk is gone"):
        tasks.get(0)
    assert tasks.get(1) is disk.weights[1]
    whole[0] = True
    assert tasks.get(0) is disk.weights[0]


def test_another_takes_a_task_whether_it_is_in_memory_or_not() -> None:
    disk = Disk(3)
    tasks, others = disk.loaded(SIZE), ResidentTasks(3 * SIZE)
    others.take(0, tasks, 2)
    others.take(1, tasks, 0)
    assert resident(others, 2) == [0]
    assert [others.get(0), others.get(1)] == [disk.weights[2], disk.weights[0]]
    assert disk.read == [0]
