"""Freed memory is kept: a batch takes what the one before it has left."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# In a process of its own: glibc keeps more by itself once larger tensors were freed, as other tests do.
BATCHES = """
import resource
import torch
from benchmarks.hot_path import queries
from mass_serve.engine import Engine
from mass_serve.server.startup import demo_store

torch.set_num_threads(1)
engine = Engine.load(demo_store(), device="cpu", dtype="float32")
asked = queries(engine, 32)
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    engine.classify_batch(asked)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_a_batch_fetches_few_pages_from_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", BATCHES], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 500  # 7,600 where glibc is left to itself
