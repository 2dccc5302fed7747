"""A CUDA device that is not there: what the program asks of one is computed on the CPU, counted and judged.

    with recorded_cuda() as cuda:
        engine = Engine.load(store, device="cuda:0")
        before = cuda.counts.copy()
        engine.classify(images)
        assert (cuda.counts - before)["waits"] <= 2

The program takes the paths that it takes with a GPU (see `tests.device_tensors`). Triton's kernels are not
compiled: what they write is filled with numbers that are finite and mean nothing. A graph is not replayed:
its outputs stay what they were when it was captured. What is right is therefore tested elsewhere, and here
who may do what, and how often.

CUDA forbids to wait for a device while any of its streams is captured, from whatever thread, and PyTorch has
one capture at a time in a process. Here every wait counts, also for an event or a copy: while a graph is
captured no thread may wait at all.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import triton
from torch import Tensor

from mass_serve.kernels import tile_shapes
from tests.device_tensors import DeviceTensor, MakingOnDevice

# What the kernels write, by the names of their arguments.
WRITTEN = {"y", "h", "c", "energies", "residuals"}
CAPTURE_SECONDS = 0.005  # so long that a thread that does not take its turn is met


class RecordedCuda:
    """Counts uploads, downloads, waits, launches, captures and replays, and keeps what was forbidden."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.forbidden: list[str] = []
        self.capturers: list[str] = []  # the threads of captures, by name
        # What Triton would have compiled: a kernel once for each kind of arguments.
        self.variants: set[tuple[Any, ...]] = set()
        self._is_capturing = False
        self._lock = threading.Lock()

    def copied(self, *, to_device: bool, waits: bool) -> None:
        """Counts a copy between host and device."""
        self.counts["uploads" if to_device else "downloads"] += 1
        if waits:
            self.waits("a copy")

    def waits(self, what: str) -> None:
        """Counts that the host waits. Raises what CUDA does where a graph is captured meanwhile."""
        self.counts["waits"] += 1
        if self._is_capturing:
            self._forbid(f"{what} waits in {threading.current_thread().name} while a graph is captured")

    def begin_capture(self) -> None:
        """Begins the only capture that there may be."""
        with self._lock:
            if self._is_capturing:
                self._forbid(f"two captures at once, one in {threading.current_thread().name}")
            self._is_capturing = True
        self.counts["captures"] += 1
        self.capturers.append(threading.current_thread().name)
        time.sleep(CAPTURE_SECONDS)

    def end_capture(self) -> None:
        """Ends it."""
        self._is_capturing = False

    def launch(self, kernel: Any, args: tuple[Any, ...], constants: dict[str, Any]) -> None:
        """Counts a launch, and fills what the kernel would write."""
        self.counts["launches"] += 1
        self.variants.add(_variant(kernel, args, constants))
        for name, value in zip(kernel.arg_names, args, strict=False):
            if name in WRITTEN and isinstance(value, DeviceTensor):
                value.held.copy_(torch.linspace(0.1, 0.9, value.shape[-1]).expand(value.shape))

    def _forbid(self, what: str) -> None:
        self.forbidden.append(what)
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")


class Stream:
    """A stream: all work is done when it is asked for."""

    def __init__(self, cuda: RecordedCuda) -> None:
        self._cuda = cuda

    def wait_stream(self, other: Stream) -> None:
        """Costs the host nothing."""

    def wait_event(self, event: Event) -> None:
        """Costs the host nothing. Counts that what another stream did is waited for."""
        if event.stream not in (None, self):
            self._cuda.counts["waits of streams"] += 1

    def synchronize(self) -> None:
        self._cuda.waits("a stream")


class Event:
    """An event, which knows when it was recorded."""

    def __init__(self, cuda: RecordedCuda) -> None:
        self._cuda = cuda
        self.seconds = 0.0
        self.stream: Stream | None = None  # that it was recorded in

    def record(self, stream: Stream | None = None) -> None:
        self.seconds = time.perf_counter()
        self.stream = stream

    def synchronize(self) -> None:
        self._cuda.waits("an event")

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds."""
        return 1e3 * (end.seconds - self.seconds)


class Graph:
    """A CUDA graph."""

    def __init__(self, cuda: RecordedCuda) -> None:
        self._cuda = cuda

    def capture_begin(self, *_: object, **__: object) -> None:
        self._cuda.begin_capture()

    def capture_end(self) -> None:
        self._cuda.end_capture()

    def replay(self) -> None:
        self._cuda.counts["replays"] += 1


@contextmanager
def recorded_cuda() -> Iterator[RecordedCuda]:
    """Inside the block there is a device `cuda:0`, for this thread and for those that are started."""
    cuda = RecordedCuda()
    DeviceTensor.transfers = cuda
    run_thread, make_tensor = threading.Thread.run, torch.tensor

    def run(self: threading.Thread) -> None:
        with torch.inference_mode(), MakingOnDevice():  # type: ignore[no-untyped-call]
            run_thread(self)

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        made = make_tensor(data, **kwargs)
        return made if device is None else made.to(device)

    def launch(kernel: Any, *args: Any, grid: Any, warmup: bool, **constants: Any) -> None:  # noqa: ARG001
        cuda.launch(kernel, args, constants)

    making = MakingOnDevice()  # type: ignore[no-untyped-call]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode(), making:
        for name, stand_in in _stand_ins(cuda).items():
            patch.setattr(torch.cuda, name, stand_in)
        patch.setattr(threading.Thread, "run", run)
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(triton.JITFunction, "run", launch)
        patch.setattr(tile_shapes, "shared_bytes", lambda _: 227 << 10)
        yield cuda
    DeviceTensor.pinned.clear()


def _variant(kernel: Any, args: tuple[Any, ...], constants: dict[str, Any]) -> tuple[Any, ...]:
    """A kernel and what Triton makes its code for.

    That is, of an argument that it specialises, whether it is 1 or divisible by 16, and of a constant its
    value.
    """

    def kind(parameter: Any, value: Any) -> object:
        if isinstance(value, Tensor):
            return value.dtype, value.data_ptr() % 16 == 0
        if parameter.do_not_specialize or isinstance(value, float):
            return type(value)
        return "1" if value == 1 else value % 16 == 0

    kinds = tuple(kind(parameter, value) for parameter, value in zip(kernel.params, args, strict=False))
    return kernel.fn.__name__, *kinds, *sorted(constants.items(), key=str)


def _stand_ins(cuda: RecordedCuda) -> dict[str, Any]:
    """Returns what stands in the place of what `torch.cuda` has, by name."""
    current, pools = Stream(cuda), itertools.count()

    @contextmanager
    def entered(_: object) -> Iterator[None]:
        yield

    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda _: "a recorder",
        "get_device_capability": lambda _: (9, 0),
        "synchronize": lambda *_: cuda.waits("the device"),
        "empty_cache": lambda: cuda.waits("freeing the cache"),
        "current_stream": lambda *_: current,
        "stream": entered,
        "Stream": lambda *_, **__: Stream(cuda),
        "Event": lambda **_: Event(cuda),
        "CUDAGraph": lambda: Graph(cuda),
        "graph_pool_handle": lambda: next(pools),
    }
