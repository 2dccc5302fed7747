"""The host's time of a batch on a GPU: what it counts, and that the device's own time is none of it."""

from __future__ import annotations

import pytest
import torch

from benchmarks import host_time
from mass_serve.backbone import Architecture, Block, PatchEmbedding, Pooling
from mass_serve.router import MODES
from tests.device_tensors import THERE

# As deep as ViT-B/16, and narrow.
NARROW = Architecture(PatchEmbedding(32, 16), Block(64, 4, 256, "quick_gelu", 1e-5), 12, Pooling(64))
BATCH = 8


def test_a_batch_of_other_tasks_than_the_one_before_costs_few_copies_and_waits() -> None:
    with host_time.random_engine(NARROW, BATCH) as (engine, clock, cuda):
        found = host_time.measure(engine, clock, cuda, BATCH, rounds=5)
    assert set(found) == {*MODES, "named"}
    assert all(own["milliseconds"] > 0 for own in found.values())
    exact = found["exact"]
    assert exact["replays"] == 3  # the first pass in two parts, and the second
    # Pixels, the plan of the second pass, its images in their order, and which head each embedding is for.
    assert exact["uploads"] == 4
    assert exact["downloads"] == exact["waits"] == 2
    assert exact["operations"] < 40, "heads are asked together, whatever their number"


def test_the_seconds_of_the_device_are_none_of_the_hosts() -> None:
    with host_time.random_engine(NARROW, 1) as (_, clock, cuda):
        x = torch.ones(1 << 24, device=THERE)
        before = cuda.counts["operations"]
        of_host = clock.seconds(lambda: x + x)
        assert cuda.counts["operations"] == before + 1
        assert of_host < clock.seconds(lambda: torch.ones(1 << 24) + 1) / 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_pinned_memory_is_used_again_by_what_has_about_its_size(dtype: torch.dtype) -> None:
    memory = host_time.PinnedMemory()
    places = {memory.empty(3, 700 + i, dtype=dtype).data_ptr() for i in range(20)}
    assert len(places) == host_time.PINNED_PIECES
    ones = memory.copy_of(torch.ones(3, 5, dtype=dtype))
    assert ones.tolist() == torch.ones(3, 5).tolist()
