"""A batch in shares of its samples, computed side by side.

On a CPU the threads of one operation wait for each other at its end, hundreds of times in a pass, and the
small products of short segments hardly keep two of them busy. Shares of the samples, each on threads of its
own, wait once. A sample's bits depend neither on its share nor on the threads (see `kernels.rows`).
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from mass_serve.backbone.packed import Batch

# Smaller shares would spend too much of their time on reading the weights.
SAMPLES_PER_SHARE = 4

_POOL = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="share")


Result = TypeVar("Result")


def in_shares(run: Callable[[slice], Result], batch: Batch) -> list[Result]:
    """`run` of slices that cover a batch of samples in order, for a `run` that takes samples on their own.

    On a CPU with several threads `run` is called for several slices at once, from other threads, which have
    the caller's inference mode and context variables; elsewhere once, for all samples.
    """
    samples, threads = len(batch), torch.get_num_threads()
    shares = min(threads, samples // SAMPLES_PER_SHARE)
    if batch.device.type != "cpu" or shares < 2:
        return [run(slice(0, samples))]
    inference = torch.is_inference_mode_enabled()

    def run_share(share: slice) -> Result:
        torch.set_num_threads(threads // shares)
        with torch.inference_mode(inference):
            return run(share)

    bounds = [samples * i // shares for i in range(shares + 1)]
    futures = [
        # A context can be entered by one thread at a time: every share has a copy of its own.
        _POOL.submit(contextvars.copy_context().run, run_share, slice(bounds[i], bounds[i + 1]))
        for i in range(shares)
    ]
    wait(futures)
    torch.set_num_threads(threads)  # a thread that starts later takes the number that was set last
    return [future.result() for future in futures]
