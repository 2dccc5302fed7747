"""Reordered weights: the products of plain ones, with the same bits in any batch and on any threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import BaseOnly, Delta, MaterialisedWeight, ReorderedWeight, linear, segmented_linear
from mass_serve.kernels.reordered import gains_by_reordering

CPU = torch.device("cpu")
DTYPES = [
    pytest.param(
        dtype,
        marks=pytest.mark.skipif(
            not gains_by_reordering(CPU, dtype), reason="the processor gains nothing by reordering"
        ),
    )
    for dtype in (torch.float32, torch.bfloat16)
]
SHAPES = [(768, 96), (3072, 64), (38, 768), (16, 128), (128, 384), (100, 36), (64, 2)]  # d_in, d_out
ROW_COUNTS = [*range(1, 36), 42, 50, 85, 119, 197, 257, 394]


@pytest.fixture
def threads() -> Iterator[list[int]]:
    before = torch.get_num_threads()
    yield [1, 2, 3, 5, 16]
    torch.set_num_threads(before)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_a_row_has_the_same_bits_in_every_product(
    d_in: int, d_out: int, dtype: torch.dtype, threads: list[int]
) -> None:
    x, added = random(600, d_in).to(dtype), random(600, d_out, seed=1).to(dtype)
    weight = ReorderedWeight.of(random(d_out, d_in, seed=2).to(dtype))
    torch.set_num_threads(1)
    whole, whole_sum = weight.product(x, added[0]), weight.product(x, None, added)
    for count in threads:
        torch.set_num_threads(count)
        for rows in ROW_COUNTS:
            start = 7 * rows % (len(x) - rows)
            part = slice(start, start + rows)
            assert torch.equal(weight.product(x[part], added[0]), whole[part]), (rows, count)
            assert torch.equal(weight.product(x[part], None, added[part]), whole_sum[part]), (rows, count)


def test_what_is_added_in_float32_is_added_to_the_product() -> None:
    x, added, weight = random(50, 128), random(50, 64, seed=1), ReorderedWeight.of(random(64, 128, seed=2))
    before = added.clone()
    assert torch.equal(weight.product(x, added[0], added), weight.product(x, added[0]) + added)
    assert torch.equal(added, before)


def test_a_slice_of_all_rows_is_the_weight_itself() -> None:
    weight = ReorderedWeight.of(random(48, 64))
    assert weight[:] is weight
    assert weight[8:][:] is not weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_a_linear_is_that_of_the_plain_weight(rows: int, dtype: torch.dtype) -> None:
    x, bias, skip = random(rows, 64).to(dtype), random(48, seed=1).to(dtype), random(rows, 48).to(dtype)
    plain = (random(48, 64, seed=3) / 8).to(dtype)
    weight = ReorderedWeight.of(plain)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    for given in ((), (bias,), (bias, "gelu"), (None, None, skip), (bias, None, skip), (bias, "gelu", skip)):
        found, wanted = linear(x, weight, *given), linear(x, plain, *given)
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)
    part = slice(16, 40)
    found, wanted = linear(x, weight[part], bias[part]), linear(x, plain[part], bias[part])
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)
    assert torch.equal(found, linear(x, weight, bias)[:, part])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_lie_apart_are_multiplied_without_the_others(dtype: torch.dtype) -> None:
    x, plain = random(9, 24).to(dtype), random(48, 24, seed=1).to(dtype)
    parts, whole = ReorderedWeight.of(plain, (slice(0, 16), slice(16, 48))), ReorderedWeight.of(plain)
    assert parts.nbytes == 2 * whole.nbytes
    for rows in (slice(0, 16), slice(16, 48), slice(8, 24)):
        torch.testing.assert_close(linear(x, parts[rows]), linear(x, whole)[:, rows])
    assert [len(parts[rows].ordered) for rows in (slice(0, 16), slice(16, 48), slice(8, 24))] == [16, 32, 48]
    assert torch.equal(linear(x, parts), linear(x, whole))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_plain_weight_can_be_had_again(dtype: torch.dtype) -> None:
    plain = random(300, 77).to(dtype)
    weight = ReorderedWeight.of(plain)
    assert torch.equal(weight.widened(), plain)
    assert torch.equal(weight[10:40].widened(), plain[10:40])
    assert weight[10:40].shape == (30, 77)
    assert (weight.shape, weight.dtype, weight.nbytes) == (plain.shape, dtype, plain.nbytes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_segments_with_weights_of_their_own_stand_between_others(dtype: torch.dtype) -> None:
    x, bias = random(30, 24).to(dtype), random(16).to(dtype)
    plain, own = (random(16, 24, seed=seed).to(dtype) / 4 for seed in (1, 2))
    deltas: list[Delta] = [BaseOnly(bias), MaterialisedWeight(own, bias), BaseOnly(None), BaseOnly(bias)]
    offsets = (0, 7, 20, 20, 30)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    for skip in (None, random(30, 16, seed=4).to(dtype)):
        found, wanted = (
            segmented_linear(x, weight, deltas, offsets, "gelu", skip)
            for weight in (ReorderedWeight.of(plain), plain)
        )
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)
