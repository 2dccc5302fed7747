"""The memory of a loaded store, in a process of its own: `python -m benchmarks.resident_memory STORE`.

`tensors`: the bytes of the tensors that stay, caches of expert sets apart. `resident`: what the process holds
beyond the same process with nothing loaded.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys

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
    torch.ones(512, 512) @ torch.ones(512, 512)  # the arithmetic library's own buffers are not the store's
    before = resident_bytes()
    engine = Engine.load(sys.argv[1])
    tensors = sum(size for kind, size in engine.nbytes.items() if kind != "set_cache")
    print(json.dumps({"tensors": tensors, "resident": resident_bytes() - before}))


if __name__ == "__main__":
    main()
