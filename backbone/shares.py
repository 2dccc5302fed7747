"""A batch in shares of its samples, computed side by side, and those in portions, one after the other.

On a CPU the threads of one operation wait for each other at its end, hundreds of times in a pass, and the
small products of short segments hardly keep two of them busy. Shares of the samples, each on threads of its
own, wait once. What one operation leaves for the next is still in the cache where a portion is small enough.
A sample's bits depend on neither share nor portion, nor on the threads (see `kernels.rows`).
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from mass_serve.backbone.packed import Batch, lengths_of

# Smaller shares would spend too much of their time on reading the weights.
SAMPLES_PER_SHARE = 4
# The widest activations of BERT-base, 3,072 numbers a token, then take 25 MB: larger ones leave the cache,
# and the C library gives memory of 32 MB back to the system after every operation.
TOKENS_PER_PORTION = 2048

_POOL = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="share")


Result = TypeVar("Result")


def in_shares(run: Callable[[slice], Result], batch: Batch) -> list[Result]:
    """`run` of slices that cover a batch of samples in order, for a `run` that takes samples on their own.

    On a CPU `run` is called for portions of about TOKENS_PER_PORTION tokens, and with several threads for
    several at once, from other threads, which have the caller's inference mode and context variables;
    elsewhere once, for all samples.
    """
    samples, threads = len(batch), torch.get_num_threads()
    if batch.device.type != "cpu":
        return [run(slice(0, samples))]
    lengths = lengths_of(batch)
    shares = min(threads, samples // SAMPLES_PER_SHARE)
    if shares < 2:
        return [run(portion) for portion in _portions(slice(0, samples), lengths)]
    inference = torch.is_inference_mode_enabled()

    def run_share(share: slice) -> list[Result]:
        torch.set_num_threads(threads // shares)
        with torch.inference_mode(inference):
            return [run(portion) for portion in _portions(share, lengths)]

    bounds = [samples * i // shares for i in range(shares + 1)]
    futures = [
        # A context can be entered by one thread at a time: every share has a copy of its own.
        _POOL.submit(contextvars.copy_context().run, run_share, slice(bounds[i], bounds[i + 1]))
        for i in range(shares)
    ]
    wait(futures)
    torch.set_num_threads(threads)  # a thread that starts later takes the number that was set last
    return [result for future in futures for result in future.result()]


def _portions(share: slice, lengths: Sequence[int]) -> Iterator[slice]:
    """Yields slices of a share of samples with those lengths, each of one sample or of no more tokens."""
    start, tokens = share.start, 0
    for sample in range(share.start, share.stop):
        if sample > start and tokens + lengths[sample] > TOKENS_PER_PORTION:
            yield slice(start, sample)
            start, tokens = sample, 0
        tokens += lengths[sample]
    yield slice(start, share.stop)
