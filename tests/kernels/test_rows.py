"""A row's bits do not depend on how many rows there are, nor on the number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mass_serve.kernels.rows import add_product_, linear, product, put_sum_

SHAPES = [
    (768, 96),
    (38, 768),
    (16, 128),
    (128, 384),
    (100, 36),
    (64, 1),
    (6, 24),
    (114, 114),
    (768, 38),
    (96, 520),
]
ROW_COUNTS = [*range(1, 36), 42, 47, 50, 51, 85, 119, 150, 197, 200, 257, 394]


@pytest.fixture
def threads() -> Iterator[list[int]]:
    before = torch.get_num_threads()
    yield [1, 2, 3, 5, 16]
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_a_row_has_the_same_bits_in_every_product(
    d_in: int, d_out: int, dtype: torch.dtype, threads: list[int]
) -> None:
    generator = torch.Generator().manual_seed(d_in + d_out)
    x = torch.randn(800, d_in, generator=generator).to(dtype)
    weight = torch.randn(d_out, d_in, generator=generator).to(dtype)
    y = torch.randn(800, d_out, generator=generator).to(dtype)
    torch.set_num_threads(1)
    whole_product, whole_linear, whole_sum = product(x, weight.T), linear(x, weight, y[0]), y.clone()
    add_product_(whole_sum, x, weight.T)
    for count in threads:
        torch.set_num_threads(count)
        for rows in ROW_COUNTS:
            start = 7 * rows % (len(x) - rows)
            part = slice(start, start + rows)
            added = y[part].clone()
            add_product_(added, x[part], weight.T)
            assert torch.equal(product(x[part], weight.T), whole_product[part]), (rows, count)
            assert torch.equal(linear(x[part], weight, y[0]), whole_linear[part]), (rows, count)
            assert torch.equal(added, whole_sum[part]), (rows, count)
            put, onto = torch.empty_like(added), y[0].expand_as(added).clone()
            put_sum_(put, y[0], x[part], weight.T)
            add_product_(onto, x[part], weight.T)
            assert torch.equal(put, onto), (rows, count)


@pytest.mark.parametrize("d_in", [100, 768])
def test_a_column_has_the_same_bits_beside_any_others(d_in: int, threads: list[int]) -> None:
    """Whoever needs a few columns of a wide matrix may copy them."""
    generator = torch.Generator().manual_seed(d_in)
    x, weight = (torch.randn(rows, d_in, generator=generator) for rows in (136, 2112))
    for count in threads[:3]:
        torch.set_num_threads(count)
        for rows in (1, 8, 17, 136):
            whole = product(x[:rows], weight.T)
            for columns in (64, 320, 1024):
                chosen = torch.randperm(len(weight), generator=generator)[:columns]
                assert torch.equal(product(x[:rows], weight[chosen].T), whole[:, chosen]), (count, rows)


def test_linear_without_bias_is_the_product() -> None:
    x, weight = torch.randn(5, 8), torch.randn(3, 8)
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
