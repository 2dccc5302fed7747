"""Attention against every product in float64, its bits in other batches, and its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mass_serve.kernels.attention import reference
from mass_serve.kernels.attention.reference import (
    SCORES_AT_ONCE,
    SHORTEST_RUN,
    attend,
    attend_near,
    attend_once,
)
from mass_serve.kernels.reordered import gains_by_reordering

NEEDS_PRODUCTS = pytest.mark.skipif(
    not gains_by_reordering(torch.device("cpu"), torch.bfloat16),
    reason="the processor does not multiply bfloat16 itself",
)


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


def _heads(samples: int, heads: int, length: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """q, k and v as a linear leaves them, side by side."""
    generator = torch.Generator().manual_seed(length)
    qkv = torch.randn(samples, length, 3 * heads * width, generator=generator).to(dtype)
    return tuple(part.view(samples, length, heads, width).transpose(1, 2) for part in qkv.chunk(3, dim=-1))


@pytest.fixture(
    params=[
        pytest.param((torch.float32, False), id="float32"),
        pytest.param((torch.bfloat16, False), id="bfloat16"),
        pytest.param((torch.bfloat16, True), id="bfloat16-by-products", marks=NEEDS_PRODUCTS),
    ]
)
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """The dtype of q, k and v, whose attention is PyTorch's or that of batched products."""
    chosen, by_products = request.param
    monkeypatch.setattr(reference, "_gains_by_products", lambda *_: by_products)
    assert isinstance(chosen, torch.dtype)
    return chosen


@pytest.fixture
def threads() -> Iterator[list[int]]:
    before = torch.get_num_threads()
    yield [1, 2, 3, 5]
    torch.set_num_threads(before)


@pytest.mark.parametrize("width", [6, 64])
@pytest.mark.parametrize("length", [1, 7, 50, 197, 750])
def test_every_token_attends_to_all(length: int, width: int, dtype: torch.dtype) -> None:
    q, k, v = _heads(3, 12, length, width, dtype)
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    found = attend(q, k, v).double()
    torch.testing.assert_close(found, _masked(q, k, v, reach=length), atol=tolerance, rtol=0)
    first = attend_once(q[:, :, :1], k, v).double()
    torch.testing.assert_close(first, found[:, :, :1], atol=tolerance, rtol=0)


@pytest.mark.parametrize("width", [8, 64, 80])
@pytest.mark.parametrize("heads", [1, 12])
@pytest.mark.parametrize("length", [1, 2, 5, 8, 15, 16, 17, 50, 197])
def test_a_sample_has_the_same_bits_in_any_batch(
    length: int, heads: int, width: int, dtype: torch.dtype, threads: list[int]
) -> None:
    q, k, v = _heads(9, heads, length, width, dtype)
    torch.set_num_threads(1)
    whole, once = attend(q, k, v), attend_once(q[:, :, :1], k, v)
    for count in threads:
        torch.set_num_threads(count)
        for samples in (slice(4, 5), slice(0, 2), slice(3, 6), slice(0, 9)):
            parts = [part[samples] for part in (q, k, v)]
            assert torch.equal(attend(*parts), whole[samples]), (count, samples)
            assert torch.equal(attend_once(parts[0][:, :, :1], *parts[1:]), once[samples]), (count, samples)


@pytest.mark.parametrize(
    ("heads", "length", "width"), [(1, 8, 32), (2, 5, 32), (1, 10, 16), (4, 3, 32), (2, 5, 64)]
)
def test_a_short_sample_has_the_same_bits_alone(
    heads: int, length: int, width: int, dtype: torch.dtype
) -> None:
    """Of a thousand such samples one differed, where few numbers were multiplied in another order."""
    q, k, v = _heads(3000, heads, length, width, dtype)
    whole = attend(q, k, v)
    for count in (1, 2):
        parts = zip(*(torch.split(part, count) for part in (q, k, v)), strict=True)
        alone = [attend(*own) for own in parts]
        assert torch.equal(torch.cat(alone), whole), count


@pytest.mark.parametrize("reach", [0, 1, 8, SHORTEST_RUN, 100])
@pytest.mark.parametrize("length", [1, 2, 9, 64, 65, 128, 129, 200, 201, 333])
def test_every_token_attends_to_the_near_ones_alone(length: int, reach: int) -> None:
    q, k, v = _random(2, length)
    found = attend_near(q, k, v, reach)
    torch.testing.assert_close(found.double(), _masked(q, k, v, reach), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("length", [70, 128, 300])
def test_a_sample_has_the_bits_that_it_has_alone(length: int, dtype: torch.dtype) -> None:
    q, k, v = _random(5, length, dtype)
    together = attend_near(q, k, v, 16)
    for row in range(5):
        one = slice(row, row + 1)
        assert torch.equal(attend_near(q[one], k[one], v[one], 16)[0], together[row])


def _largest_allocation(attended: Callable[[], Tensor]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        attended()
    return max(int(event.self_cpu_memory_usage) for event in profiled.events())


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    def of_length(length: int) -> int:
        q, k, v = _random(1, length)
        return _largest_allocation(lambda: attend_near(q, k, v, 64))

    assert of_length(4096) <= 2 * of_length(2048)


@pytest.mark.parametrize("length", [50, 700, 2000])
def test_no_more_scores_are_there_at_a_time_than_fit_the_cache(length: int, dtype: torch.dtype) -> None:
    q, k, v = _random(40, length, dtype)
    largest = _largest_allocation(lambda: attend(q, k, v))
    assert largest <= max(SCORES_AT_ONCE * 4, q.nbytes)
