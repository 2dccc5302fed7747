"""Freed memory is kept: a batch takes what the one before it has left."""

from __future__ import annotations

import ctypes
import os
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
    assert pages_of_a_batch() < 500  # 7,600 where glibc is left to itself
    assert pages_of_a_batch(MALLOC_TRIM_THRESHOLD_="131072") > 500  # whoever says so is heard


def pages_of_a_batch(**variables: str) -> int:
    command = [sys.executable, "-c", BATCHES]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | variables)
    return int(done.stdout)
