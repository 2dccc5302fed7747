"""Folders of tests that need the fused kernels: on a GPU, or in Triton's interpreter on a CPU.

The interpreter must be chosen before Triton is imported, so an ordinary run starts a process of its own for
each file of such a folder (`InterpretedRuns`). Outside of it the tests need a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
ROOT = Path(__file__).parent.parent
NO_GPU = (
    "needs an NVIDIA GPU and the CUDA build of torch; what a CPU can show of it ran in Triton's interpreter"
)


def need_a_gpu(items: Sequence[pytest.Item], folder: Path) -> None:
    """Marks the tests of a folder, unless they run in the interpreter."""
    if INTERPRETED:
        return
    no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(no_gpu)


class InterpretedRuns:
    """Files of tests that run in the interpreter, as many at a time as there are cores: a run uses one."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._runs = {path: self._pool.submit(_run, path) for path in paths}

    def check(self, path: Path) -> None:
        """Waits for the end of one of them; its failures are an AssertionError."""
        done = self._runs[path].result()
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout

    def wait(self) -> None:
        """Returns when all of them are over, for tests that the load would disturb."""
        wait(self._runs.values())

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _run(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(path)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = {**os.environ, **one_thread, "TRITON_INTERPRET": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
