"""Rows of few bits: what is packed comes back, whole or in part."""

from __future__ import annotations

import pytest
import torch

from mass_serve.kernels.packed_rows import Bits, PackedRows, with_more_rows

WIDTHS = [1, 2, 5, 8, 33]


def _numbers(bits: Bits, width: int) -> torch.Tensor:
    torch.manual_seed(width)
    limit = 1 << bits - 1
    return torch.randint(-limit, limit, (3, width), dtype=torch.int8)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("bits", [4, 8])
def test_all_columns_and_any_neighbours_of_them_come_back(bits: Bits, width: int) -> None:
    numbers = _numbers(bits, width)
    rows = PackedRows.of(numbers, bits)
    assert torch.equal(rows.numbers(torch.float32), numbers.float())
    for start in range(width + 1):
        for stop in range(start, width + 1):
            part = rows.of_columns(slice(start, stop))
            assert part.shape == (3, stop - start)
            assert torch.equal(part.numbers(torch.bfloat16), numbers[:, start:stop].bfloat16())
            assert torch.equal(part.contiguous().numbers(torch.int8), numbers[:, start:stop])
            assert torch.equal(part.lengths, rows.lengths)  # those of the whole rows


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("bits", [4, 8])
def test_single_columns_come_back(bits: Bits, width: int) -> None:
    numbers, columns = _numbers(bits, width), torch.randint(0, width, (7,))
    found = PackedRows.of(numbers, bits).numbers_at(columns, torch.float32)
    assert torch.equal(found, numbers[:, columns].float())


def test_two_numbers_of_four_bits_share_a_byte_and_of_an_odd_width_one_is_alone() -> None:
    rows = PackedRows.of(torch.tensor([[3, -7, -1, 0, 7]], dtype=torch.int8), 4)
    # Columns 0 and 3, 1 and 4, 2 alone: the second of a pair in the high bits.
    assert rows.codes.tolist() == [[0x03, 0x79, 0x0F]]
    assert rows.nbytes == 3


def test_directions_are_of_length_one_but_for_a_row_of_zeros() -> None:
    rows = PackedRows.of(torch.tensor([[3, 0, -4], [0, 0, 0]], dtype=torch.int8), 4)
    torch.testing.assert_close(rows.directions(), torch.tensor([[0.6, 0.0, -0.8], [0.0, 0.0, 0.0]]))
    assert rows.lengths.tolist() == [5.0, 0.0]


def test_leading_rows_are_the_first_and_zeros_may_follow() -> None:
    numbers = _numbers(4, 8)
    rows = PackedRows.of(numbers, 4)
    assert torch.equal(rows.leading(2).numbers(torch.int8), numbers[:2])
    more = with_more_rows(rows.leading(1), 2)
    assert not isinstance(more, torch.Tensor)
    assert torch.equal(
        more.numbers(torch.int8), torch.cat([numbers[:1], torch.zeros(2, 8, dtype=torch.int8)])
    )


@pytest.mark.parametrize("numbers", [torch.tensor([[8]], dtype=torch.int8), torch.tensor([[1.0]])])
def test_numbers_that_do_not_fit_are_refused(numbers: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="whole numbers from -8 to 7"):
        PackedRows.of(numbers, 4)


def test_bytes_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"7 numbers of 4 bits are \[R, 4\] of int8"):
        PackedRows(torch.zeros(2, 3, dtype=torch.int8), 7, 4)
