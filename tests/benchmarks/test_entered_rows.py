"""What enters each linear is kept of every sample, however many threads compute the pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.entered_rows import EnteredRows
from benchmarks.random_models import random_parameters
from mass_serve.backbone import Architecture, Block, PatchEmbedding, Pooling, patchify, run

TINY = Architecture(
    PatchEmbedding(32, 8), Block(64, 4, 256, "quick_gelu", 1e-5), depth=3, pooling=Pooling(48)
)
SAMPLES = 10
TOKENS = 17


def _entered(threads: int) -> dict[str, Tensor]:
    weights = EnteredRows(random_parameters(TINY, torch.Generator().manual_seed(0)))
    pixels = torch.randn(SAMPLES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        run(TINY, weights, patchify(pixels, TINY.patches.patch_size))
    finally:
        torch.set_num_threads(before)
    return {linear: weights.entered(linear) for linear in weights.linears()}


@pytest.mark.parametrize("threads", [2, 3])
def test_the_rows_of_all_samples_are_there_in_their_order(threads: int) -> None:
    alone, together = _entered(1), _entered(threads)
    assert alone.keys() == together.keys() >= {linear for block in TINY.blocks() for linear in block.linears}
    for linear, rows in alone.items():
        assert len(rows) in {SAMPLES * TOKENS, SAMPLES * (TOKENS - 1), SAMPLES}, linear
        assert torch.equal(rows, together[linear]), linear
