"""Work on whole matrices side by side, each on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread_per_operation() -> Iterator[int]:
    """Lets PyTorch's operations run on the calling thread alone; gives the number of threads they had.

    The threads of one eigendecomposition wait for each other all the time: on two cores that are busy
    otherwise, one of 768 x 768 took 21 s with two threads and 0.6 s with one. Whole matrices side by side
    use the cores better, and give the same bits on any number of them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields `function` of each item, in order, on as many threads as PyTorch's operations would use."""
    with one_thread_per_operation() as threads, ThreadPoolExecutor(threads, "matrix", _one_thread) as pool:
        yield from pool.map(function, items)


def _one_thread() -> None:
    # OpenMP keeps the number of threads for each calling thread.
    torch.set_num_threads(1)
