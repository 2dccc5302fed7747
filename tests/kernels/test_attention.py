"""Local attention against a mask over all pairs of places, and its memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mass_serve.kernels.attention.reference import SHORTEST_RUN, attend_near


def _random(samples: int, length: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    return list(torch.randn(3, samples, 2, length, 16, generator=generator).to(dtype))


def _masked(q: Tensor, k: Tensor, v: Tensor, reach: int) -> Tensor:
    """Local attention in float64, with every product that there is."""
    places = torch.arange(q.shape[2])
    far = (places.unsqueeze(1) - places).abs() > reach
    products = (q.double() @ k.double().mT / q.shape[-1] ** 0.5).masked_fill(far, -torch.inf)
    attended: Tensor = products.softmax(-1) @ v.double()
    return attended


@pytest.mark.parametrize("reach", [0, 1, 8, SHORTEST_RUN, 100])
@pytest.mark.parametrize("length", [1, 2, 9, 64, 65, 128, 129, 200, 201, 333])
def test_every_token_attends_to_the_near_ones_alone(length: int, reach: int) -> None:
    q, k, v = _random(2, length)
    found = attend_near(q, k, v, reach)
    torch.testing.assert_close(found.double(), _masked(q, k, v, reach), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [70, 128, 300])
def test_a_sample_has_the_bits_that_it_has_alone(length: int, dtype: torch.dtype) -> None:
    q, k, v = _random(5, length, dtype)
    together = attend_near(q, k, v, 16)
    for row in range(5):
        one = slice(row, row + 1)
        assert torch.equal(attend_near(q[one], k[one], v[one], 16)[0], together[row])


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    def largest_allocation(length: int) -> int:
        q, k, v = _random(1, length)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            attend_near(q, k, v, 64)
        return max(int(event.self_cpu_memory_usage) for event in profiled.events())

    assert largest_allocation(4096) <= 2 * largest_allocation(2048)
