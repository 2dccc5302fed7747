"""Folders of tests that need the fused kernels: on a GPU, or in Triton's interpreter on a CPU.

The interpreter must be chosen before Triton is imported, so an ordinary run starts a process of its own for
each file of such a folder (`run_interpreted`). Outside of it the tests need a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
ROOT = Path(__file__).parent.parent


def need_a_gpu(items: Sequence[pytest.Item], folder: Path) -> None:
    """Marks the tests of a folder, unless they run in the interpreter."""
    if INTERPRETED:
        return
    no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(no_gpu)


def run_interpreted(path: Path) -> None:
    """Runs a file of tests in the interpreter; its failures are an AssertionError."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(path)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
