"""Weights and rows of whole numbers: exact sums, bounded errors, and the same bits in any batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import QuantisedWeight, linear, segmented_embedding
from mass_serve.kernels import quantised as quantised_products
from mass_serve.kernels.activation_names import ACTIVATIONS, Activation
from mass_serve.kernels.activations import activate_
from mass_serve.kernels.low_rank.deltas import BaseOnly, Delta, MaterialisedWeight
from mass_serve.kernels.low_rank.reference import segmented_linear
from mass_serve.kernels.quantised import LARGEST, multiplies_int8
from mass_serve.kernels.weights import rows_of

SHAPES = [(768, 96), (38, 768), (16, 128), (100, 36), (64, 2), (3072, 70), (1025, 5)]  # d_in, d_out
NEEDS_VNNI = pytest.mark.skipif(not multiplies_int8(), reason="the processor has no products of int8")


FORMS = [pytest.param(True, marks=NEEDS_VNNI, id="ordered"), pytest.param(False, id="plain")]


@pytest.fixture
def threads() -> Iterator[list[int]]:
    before = torch.get_num_threads()
    yield [1, 2, 3, 16]
    torch.set_num_threads(before)


def quantised(weight: Tensor, dtype: torch.dtype, *, ordered: bool) -> QuantisedWeight:
    plain = QuantisedWeight.of(weight, dtype)
    return plain.ordered() if ordered else plain


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_weight_is_within_half_a_step_of_what_it_was() -> None:
    weight = random(40, 77)
    weight[3] = 0
    quantised = QuantisedWeight.of(weight, torch.float32)
    steps = weight.abs().amax(1, keepdim=True) / LARGEST
    assert ((quantised.widened() - weight).abs() <= 0.501 * steps).all()
    assert int(quantised.codes.min()) >= -LARGEST  # -128 would overflow where products are summed in pairs
    assert quantised.shape == weight.shape
    assert quantised.nbytes == 40 * 77 + 40 * 4


@pytest.mark.parametrize("ordered", FORMS)
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_sums_are_exact_also_of_the_largest_numbers(d_in: int, d_out: int, ordered: bool) -> None:
    x = torch.full((9, d_in), float(LARGEST))
    x[::2] *= -1
    drawn = torch.randint(-LARGEST, LARGEST + 1, (d_out, d_in), generator=torch.Generator().manual_seed(1))
    drawn[:, 0] = LARGEST  # so that the scale is 1
    for numbers in (torch.full((d_out, d_in), LARGEST), drawn):
        weight = quantised(numbers.float(), torch.float32, ordered=ordered)
        assert torch.equal(linear(x, weight), (x.long() @ numbers.long().T).float())


@pytest.mark.parametrize("ordered", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_a_linear_is_that_of_the_widened_numbers(
    activation: Activation | None, dtype: torch.dtype, ordered: bool
) -> None:
    x, bias, skip = random(300, 64).to(dtype), random(48, seed=1).to(dtype), random(300, 48, seed=2).to(dtype)
    weight = quantised(random(48, 64, seed=3) / 8, dtype, ordered=ordered)
    rows, numbers = QuantisedWeight.of(x, dtype), QuantisedWeight.of(random(48, 64, seed=3) / 8, dtype)
    wanted = (rows.codes.double() * rows.scales[:, None]) @ (
        numbers.codes.double() * numbers.scales[:, None]
    ).T
    wanted += bias
    if activation is not None:
        wanted = activate_(wanted.float(), activation).double()
    found = linear(x, weight, bias, activation, skip)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found.double(), wanted + skip, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("ordered", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_a_row_has_the_same_bits_in_every_product(
    d_in: int, d_out: int, dtype: torch.dtype, ordered: bool, threads: list[int]
) -> None:
    x, bias = random(600, d_in).to(dtype), random(d_out).to(dtype)
    weight = quantised(random(d_out, d_in), dtype, ordered=ordered)
    torch.set_num_threads(1)
    whole = linear(x, weight, bias, "gelu")
    for count in threads:
        torch.set_num_threads(count)
        for rows in (*range(1, 20), 50, 197, 257, 513):
            start = 7 * rows % (len(x) - rows)
            part = slice(start, start + rows)
            assert torch.equal(linear(x[part], weight, bias, "gelu"), whole[part]), (rows, count)


@NEEDS_VNNI
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_processors_with_and_without_products_of_int8_agree_to_the_last_bit(d_in: int, d_out: int) -> None:
    x, weight = random(33, d_in), QuantisedWeight.of(random(d_out, d_in, seed=1), torch.float32)
    assert torch.equal(linear(x, weight.ordered(), activation="gelu"), linear(x, weight, activation="gelu"))


@NEEDS_VNNI
def test_ordered_numbers_are_the_same_numbers_and_so_are_some_of_their_rows() -> None:
    x, weight = random(5, 24), QuantisedWeight.of(random(40, 24, seed=1), torch.float32)
    ordered = weight.ordered()
    assert ordered.shape == weight.shape
    assert ordered.nbytes == weight.nbytes
    assert torch.equal(ordered.widened(), weight.widened())
    part = ordered[8:32][4:]
    assert part.shape == (20, 24)
    assert torch.equal(part.widened(), weight.widened()[12:32])
    assert torch.equal(linear(x, part, activation="gelu"), linear(x, weight, activation="gelu")[:, 12:32])


@NEEDS_VNNI
def test_rows_that_lie_apart_are_multiplied_without_the_others() -> None:
    x, weight = random(5, 24), QuantisedWeight.of(random(48, 24, seed=1), torch.float32)
    ordered = weight.ordered((slice(0, 16), slice(16, 48)))
    assert ordered.nbytes == 2 * weight.nbytes
    for rows in (slice(0, 16), slice(16, 48), slice(8, 24)):
        assert torch.equal(linear(x, ordered[rows]), linear(x, weight)[:, rows])
    assert [len(ordered[rows].scales) for rows in (slice(0, 16), slice(16, 48), slice(8, 24))] == [16, 32, 48]
    assert torch.equal(linear(x, ordered), linear(x, weight))


def test_rows_are_rounded_to_the_nearest_number_and_halves_to_even_ones() -> None:
    halves = torch.arange(-LARGEST, LARGEST, 0.5).unsqueeze(1)  # 127 in each row: the scale is 1
    x = torch.cat([halves, torch.full_like(halves, LARGEST)], dim=1)
    weight = QuantisedWeight.of(torch.tensor([[LARGEST, 0.0]]), torch.float32)
    assert torch.equal(linear(x, weight), halves.round() * LARGEST)


def test_a_processor_without_products_of_int8_keeps_the_numbers_as_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(quantised_products, "multiplies_int8", multiplies_int8.__wrapped__)
    weight = QuantisedWeight.of(random(4, 8), torch.float32)
    assert weight.ordered() is weight


def test_segments_with_weights_of_their_own_stand_between_others() -> None:
    x, bias = random(30, 24), random(10)
    shared, own = QuantisedWeight.of(random(10, 24, seed=1), torch.float32), random(10, 24, seed=2)
    deltas: list[Delta] = [BaseOnly(bias), MaterialisedWeight(own, bias), BaseOnly(None), BaseOnly(bias)]
    y = segmented_linear(x, shared, deltas, (0, 7, 20, 20, 30), "gelu")
    expected = linear(x, shared, bias, "gelu")
    expected[7:20] = torch.nn.functional.gelu(x[7:20] @ own.T + bias)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("ordered", FORMS)
def test_rows_that_are_not_finite_stay_so_and_spoil_no_others(ordered: bool) -> None:
    x, weight = random(6, 32), quantised(random(8, 32, seed=1), torch.float32, ordered=ordered)
    whole = linear(x, weight)
    x[2, 5], x[4, 0] = torch.inf, torch.nan
    found = linear(x, weight)
    assert not found[[2, 4]].isfinite().any()
    assert torch.equal(found[[0, 1, 3, 5]], whole[[0, 1, 3, 5]])


def test_rows_of_a_table_and_of_an_output_are_those_of_the_whole() -> None:
    table = QuantisedWeight.of(random(50, 12), torch.bfloat16)
    ids = torch.tensor([3, 49, 3, 0])
    assert torch.equal(rows_of(table, ids), table.widened()[ids])
    assert torch.equal(segmented_embedding(ids, table, [BaseOnly(None)], (0, 4)), table.widened()[ids])
    assert torch.equal(table[5:20].widened(), table.widened()[5:20])


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE", "DEFAULT"])
def test_products_are_right_whatever_onednn_may_use(instructions: str) -> None:
    program = """
import torch
from mass_serve.kernels.quantised import QuantisedWeight, quantised_product_

weight, x = torch.full((32, 256), 1.0), torch.full((3, 256), -1.0)
y = torch.empty(3, 32)
quantised_product_(y, x, QuantisedWeight.of(weight, torch.float32).ordered(), None)
assert torch.allclose(y, torch.full((3, 32), -256.0)), y
"""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)


def test_a_row_has_the_same_bits_where_rows_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, added, bias = random(50, 64), random(50, 48, seed=1), random(48, seed=2)
    weight = QuantisedWeight.of(random(48, 64, seed=3), torch.float32)

    def products() -> list[Tensor]:
        found = [torch.empty(50, 48), torch.empty(50, 48), added.clone()]
        for y, own in zip(found, (None, bias, found[2]), strict=True):
            quantised_products.quantised_product_(y, x, weight, own, "gelu")
        return found

    whole = products()
    monkeypatch.setattr(quantised_products, "NUMBERS_AT_ONCE", 7 * 64)
    assert all(map(torch.equal, products(), whole))
