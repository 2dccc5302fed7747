"""CUDA graphs of passes, which share their memory: one runs at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from mass_serve.backbone.device_turn import device_turn

WARM_UP_RUNS = 2

Result = TypeVar("Result")


class Graphs:
    """Captures launches on one device, on a stream and into a pool of memory of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # PyTorch wants one stream for all graphs of a pool, and its own is shared with other threads.
        self._stream = torch.cuda.Stream(device=device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, launch: Callable[[], Result]) -> tuple[torch.cuda.CUDAGraph, Result]:
        """Returns a graph of what `launch` launches, and where its replays leave the result.

        The launches are not run but for a warm-up: a replay runs them.
        """
        with device_turn(self._device):
            calling = torch.cuda.current_stream(self._device)
            self._stream.wait_stream(calling)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP_RUNS):  # kernels are compiled and tile maps made before the capture
                    launch()
                # `torch.cuda.graph` would wait for the whole device, which no thread may during a capture.
                self._stream.synchronize()
                # What other threads allocate and copy for the next store is none of this capture's business.
                graph.capture_begin(self._pool, capture_error_mode="thread_local")
                try:
                    result = launch()
                except BaseException:
                    with suppress(RuntimeError):  # what went wrong is the launch
                        graph.capture_end()
                    raise
                graph.capture_end()
            calling.wait_stream(self._stream)
        return graph, result
