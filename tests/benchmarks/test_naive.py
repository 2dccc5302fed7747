"""The baseline that rebuilds a dense model for each set gives what the shared blocks give."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks import naive
from mass_serve.engine import Engine, Query


def test_it_rebuilds_what_sets_compute(built_of_all: Path) -> None:
    engine = Engine.load(str(built_of_all), device="cpu")
    size = engine.architecture.patches.image_size
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    inputs = engine._inputs([Query(one) for one in pixels])
    assert isinstance(inputs, Tensor)
    sets = [(0, 1), (1, 2)]
    experts = engine.bank.expert_sets(sets, materialised=False)
    ours = engine._passes.second(inputs, experts, (0, 1, 2))
    torch.testing.assert_close(naive.serve(engine.bank, sets, inputs), ours, atol=1e-4, rtol=1e-3)
