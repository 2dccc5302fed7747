"""Times and ceilings on a GPU. Elsewhere the same functions run by the wall clock, for their tests."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

NO_GPU = 2


def need_cuda() -> torch.device:
    """The GPU. Ends the process with exit code 2 where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    print("this benchmark measures an NVIDIA GPU, and PyTorch finds none here", file=sys.stderr)
    sys.exit(NO_GPU)


def card(device: torch.device) -> dict[str, str]:
    """What the driver says of the GPU: its name and version, and the clocks that it has now and may have."""
    names = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    number = torch.cuda.current_device() if device.index is None else device.index
    done = subprocess.run([*command, f"--id={number}"], check=True, capture_output=True, text=True)
    return dict(zip(names, (value.strip() for value in done.stdout.split(",")), strict=True))


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long one call takes, to the end of its work on the device."""
    if device.type != "cuda":
        before = time.perf_counter()
        run()
        return time.perf_counter() - before
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def medians(
    variants: Mapping[str, Callable[[], object]], device: torch.device, budget: float, warm_up: int = 3
) -> dict[str, float]:
    """Median seconds of each variant; they take turns, for about `budget` seconds, at most 50 rounds.

    After a warm-up there are at least 5 rounds; without one, a single round will do.
    """
    for run in variants.values():
        for _ in range(warm_up):
            run()
    first = {name: seconds(run, device) for name, run in variants.items()}
    least = 5 if warm_up else 1
    rounds = min(50, max(least, int(budget / max(sum(first.values()), 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            times[name].append(seconds(run, device))
    return {name: statistics.median(values) for name, values in times.items()}


def ceilings(device: torch.device, elements: int = 1 << 30, size: int = 8192) -> dict[str, float]:
    """Copy bandwidth in bytes a second (read plus written) and the bfloat16 matrix rate in operations."""
    source = torch.randn(elements, device=device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = medians(
        {"copy": lambda: target.copy_(source), "product": lambda: F.linear(a, b)}, device, budget=0.5
    )
    return {
        "copy_bytes_per_second": 2 * source.nbytes / times["copy"],
        "matrix_operations_per_second": 2 * size**3 / times["product"],
    }


def graphed(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The same work replayed from a CUDA graph, where there is CUDA."""
    if device.type != "cuda":
        return run
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
