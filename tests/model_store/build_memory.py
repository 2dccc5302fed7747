"""Prints how far building raises the resident memory of a process: `build_memory.py MODELS OUT TASKS`.

A process of its own, because the peak of a process never falls again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from mass_serve.merging.formats.low_rank import task_singular_vectors
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput


def peak_bytes() -> int:
    """The largest resident set of this program; getrusage would count the one that started it."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main(models: Path, out: Path, num_tasks: int) -> None:
    """Builds a store of the first tasks, its merged base included."""
    torch.set_num_threads(2)
    task_singular_vectors(torch.randn(64, 64), 8)  # the linear algebra library's own memory
    before = peak_bytes()
    tasks = [TaskInput(f"task{index}", models / f"task{index}") for index in range(num_tasks)]
    # Random weights of this width are small beside what the suite changes.
    build(models / "pretrained", tasks, out, BuildOptions(merged_base="stored", force=True))
    print(peak_bytes() - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
