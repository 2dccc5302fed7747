"""Eigendecompositions without threads of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
