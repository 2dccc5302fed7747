"""What a batch of an engine on a GPU takes of the host's own time, measured where there is no GPU.

    python -m benchmarks.host_time [--json FILE] [--batch N] [--rounds N]

The engine has random weights of ViT-B/16 and 8 tasks, in bfloat16, and takes the paths that it takes on CUDA:
planned passes replayed from graphs, pinned uploads, events. The device is the stand-in of
`tests.recorded_cuda`. What is computed on it is computed within the calls, and the seconds of these are taken
off: on a GPU each would cost the host a launch, whose time no machine without one can tell, so that they are
counted beside the seconds. What passes measure is drawn anew for every batch: images have other tasks than in
the batch before, and every second pass has a plan to be sent.

Seconds are the least of one thread over rounds in which all variants take turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median_low
from typing import Any, TypeVar

import pytest
import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from benchmarks.gpu_models import VITS
from benchmarks.random_stores import random_store
from mass_serve.backbone import Architecture
from mass_serve.backbone.graphs import Graphs
from mass_serve.backbone.one_pass import PassResult
from mass_serve.engine import Engine, Query
from mass_serve.engine.execution import Execution
from mass_serve.router import MODES
from tests import device_tensors
from tests.device_tensors import OF_ONE_SIDE, THERE, DeviceTensor, MakingOnDevice, held_of
from tests.recorded_cuda import WRITTEN, RecordedCuda, recorded_cuda

TASKS = 8
CACHE_BYTES = 1 << 30
# Energies that are drawn, as shares of a token's: so far apart that images have different tasks, and so near
# that `exact` tries some images with two.
SHARES = (0.2, 0.6)
COSINES = (0.1, 0.2)  # that kernels outside of graphs compute, to class vectors
FACTORIES = ("empty", "zeros", "ones", "full", "arange", "tensor")
PINNED_PIECES = 8
CALLS = 1000
WARM_UP = 40  # rounds, until products of class vectors have plans for most numbers of rows
COUNTED = ("operations", "launches", "replays", "uploads", "downloads", "waits")

Result = TypeVar("Result")


class HostClock:
    """Tells the host's seconds from those that are spent in calls for what a device would compute."""

    def __init__(self) -> None:
        self._of_device = 0.0
        self._is_in_device = False
        self._of_call = 0.0  # what it takes to come to a call for the device and back, beside its own seconds

    def on_device(self, compute: Callable[..., Result]) -> Callable[..., Result]:
        """The same function, whose seconds are the device's."""

        def timed(*args: Any, **kwargs: Any) -> Result:
            if self._is_in_device:
                return compute(*args, **kwargs)
            self._is_in_device, start = True, time.thread_time()
            try:
                return compute(*args, **kwargs)
            finally:
                self._is_in_device = False
                self._of_device += time.thread_time() - start + self._of_call

        return timed

    def calibrate(self) -> None:
        """Measures what the stand-in takes of the host's seconds where an operation is none, as a size."""
        there = torch.zeros(1, device=THERE)
        self._of_call = (
            min(self.seconds(lambda: [there.ndim for _ in range(CALLS)]) for _ in range(9)) / CALLS
        )

    def seconds(self, run: Callable[[], object]) -> float:
        """The host's seconds of a call."""
        before, start = self._of_device, time.thread_time()
        run()
        return time.thread_time() - start - (self._of_device - before)


class PinnedMemory:
    """Pinned memory as PyTorch's allocator gives it: pieces of a power of two, which are used again."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[Tensor]] = {}
        self._taken = Counter[int]()

    def empty(self, *size: int, dtype: torch.dtype) -> Tensor:
        """Memory that holds anything."""
        shape = torch.Size(size)
        nbytes = shape.numel() * dtype.itemsize
        room = 1 << max(nbytes - 1, 511).bit_length()
        if room not in self._pieces:
            self._pieces[room] = [torch.zeros(room, dtype=torch.uint8) for _ in range(PINNED_PIECES)]
            DeviceTensor.pinned.extend(self._pieces[room])
        self._taken[room] += 1
        return self._pieces[room][self._taken[room] % PINNED_PIECES][:nbytes].view(dtype).view(shape)

    def copy_of(self, tensor: Tensor) -> Tensor:
        """The tensor in pinned memory."""
        return self.empty(*tensor.shape, dtype=tensor.dtype).copy_(tensor)


class DrawnReplay:
    """A graph whose replays draw energies, features and embeddings anew; the rest stays as captured."""

    def __init__(self, graph: Any, result: PassResult, draw: Callable[[PassResult], None]) -> None:
        self._graph, self._result, self._draw = graph, result, draw

    def replay(self) -> None:
        """Costs the host the call."""
        self._graph.replay()
        self._draw(self._result)


def _draw(result: PassResult) -> None:
    for name, output in result.outputs.items():
        if name == "energies":
            held_of(output).uniform_(*SHARES)
        elif name in {"embedding", "feature"}:
            held_of(output).normal_()


@contextmanager
def drawn_replays(clock: HostClock) -> Iterator[None]:
    """Graphs that are captured inside the block give other results with every replay."""
    capture, draw = Graphs.capture, clock.on_device(_draw)

    def captured(self: Graphs, launch: Callable[[], Any]) -> Any:
        graph, result = capture(self, launch)
        return DrawnReplay(graph, result, draw), result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graphs, "capture", captured)
        yield


@contextmanager
def only_the_host(clock: HostClock, cuda: RecordedCuda) -> Iterator[None]:
    """Inside the block what the device computes counts as its time, and what the host does costs no more
    than ever: operations on the CPU are not looked at.
    """
    memory, operate, zeros = PinnedMemory(), device_tensors.operate, torch.zeros
    of_tensors, move = DeviceTensor.__torch_function__, Tensor.to

    @clock.on_device
    def launch(kernel: Any, *args: Any, **_: Any) -> None:
        cuda.counts["launches"] += 1
        for name, value in zip(kernel.arg_names, args, strict=False):
            if name in WRITTEN and isinstance(value, DeviceTensor):
                value.held.uniform_(*COSINES)

    def operated(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not func.is_view and "empty" not in func.overloadpacket.__name__:
            cuda.counts["operations"] += 1
        return operate(func, args, kwargs)

    def of_tensor(_: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = of_tensors(func, types, args, kwargs)
        if func in OF_ONE_SIDE and result is not args[0]:
            cuda.counts["operations"] += 1
        return result

    @clock.on_device
    def made(make: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        with MakingOnDevice():  # type: ignore[no-untyped-call]
            return make(*args, **kwargs)

    def factory(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def either(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
            if pin_memory:
                piece = memory.empty(*args, **kwargs)
                return piece.zero_() if make is zeros else piece
            return (make if kwargs.get("device") is None else _either_side(make, made, kwargs))(
                *args, **kwargs
            )

        return either

    def moved(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        goes = isinstance(self, DeviceTensor) or THERE in (*args, *kwargs.values())
        return made(move, self, *args, **kwargs) if goes else move(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, _disable_current_modes():
        for name in FACTORIES:
            patch.setattr(torch, name, factory(getattr(torch, name)))
        patch.setattr(Tensor, "to", moved)
        patch.setattr(Tensor, "pin_memory", lambda tensor: memory.copy_of(tensor))
        patch.setattr(device_tensors, "operate", operated)
        patch.setattr(DeviceTensor, "__torch_function__", classmethod(clock.on_device(of_tensor)))
        patch.setattr(triton.JITFunction, "run", launch)
        yield


def _either_side(make: Any, made: Any, kwargs: Mapping[str, Any]) -> Any:
    is_there = torch.device(kwargs["device"]).type == THERE.type
    return (lambda *args, **own: made(make, *args, **own)) if is_there else make


def variants(engine: Engine, batch: int) -> dict[str, Callable[[], object]]:
    """A batch in each mode, and one whose images have tasks named, each in turn."""
    crop = engine.preprocessing.crop
    pixels = torch.randint(0, 256, (batch, 3, crop, crop), dtype=torch.uint8).unbind()
    names = list(engine.tasks)

    def asking(queries: list[Query]) -> Callable[[], object]:
        return lambda: engine.classify_batch(queries)

    return {mode: asking([Query(image, mode=mode) for image in pixels]) for mode in MODES} | {
        "named": asking([Query(image, (names[row % TASKS],)) for row, image in enumerate(pixels)])
    }


def measure(engine: Engine, clock: HostClock, cuda: RecordedCuda, batch: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of the host for a batch in each mode, and the medians of what is counted."""
    runs = variants(engine, batch)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    counts: dict[str, list[Counter[str]]] = {name: [] for name in runs}
    for _ in range(WARM_UP + rounds):
        for name, run in runs.items():
            before = cuda.counts.copy()
            seconds[name].append(clock.seconds(run))
            counts[name].append(cuda.counts - before)
    return {
        name: {
            "milliseconds": round(1e3 * min(seconds[name][WARM_UP:]), 2),
            **{what: median_low(one[what] for one in counts[name][WARM_UP:]) for what in COUNTED},
        }
        for name in runs
    }


@contextmanager
def random_engine(
    architecture: Architecture, max_batch: int
) -> Iterator[tuple[Engine, HostClock, RecordedCuda]]:
    """An engine of random weights that is ready for batches of so many images, and what measures it."""
    clock = HostClock()
    torch.manual_seed(0)
    with recorded_cuda() as cuda, drawn_replays(clock):
        loaded = random_store(architecture, TASKS, torch.bfloat16, THERE)
        engine = Engine(loaded, Execution.LOW_RANK, CACHE_BYTES)
        engine.warm_up(max_batch)
        with only_the_host(clock, cuda):
            clock.calibrate()
            yield engine, clock, cuda


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.host_time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with random_engine(VITS["B/16"], options.batch) as (engine, clock, cuda):
        found = measure(engine, clock, cuda, options.batch, options.rounds)
    for name, own in found.items():
        print(f"{name:10s}", own, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"batch": options.batch, "modes": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
