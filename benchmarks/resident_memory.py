"""What it takes to load a store, in a process of its own.

    python -m benchmarks.resident_memory STORE [--resident-task-bytes N]

`tensors`: the bytes of the tensors that stay, caches of expert sets apart. `resident`: what the process holds
beyond the same process with nothing loaded. `load_seconds`: a processor's, of all threads.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import time

import psutil
import torch

from mass_serve.engine import Engine


def resident_bytes() -> int:
    """Returns what this process holds in memory, without what its allocator keeps for later."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("store")
    parser.add_argument("--resident-task-bytes", type=int, help="memory for the weights of tasks")
    asked = parser.parse_args()
    torch.ones(512, 512) @ torch.ones(512, 512)  # the arithmetic library's own buffers are not the store's
    before, start = resident_bytes(), time.process_time()
    engine = Engine.load(asked.store, dtype="float32", resident_task_bytes=asked.resident_task_bytes)
    seconds = time.process_time() - start
    tensors = sum(size for kind, size in engine.nbytes.items() if kind != "set_cache")
    resident = resident_bytes() - before
    print(json.dumps({"tensors": tensors, "resident": resident, "load_seconds": seconds}))


if __name__ == "__main__":
    main()
