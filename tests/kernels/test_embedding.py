"""Rows of tables with a change for each segment: against the whole table of the segment, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import (
    BaseOnly,
    Delta,
    FoldedSides,
    MaterialisedWeight,
    OneTask,
    SeveralTasks,
    SmallSides,
    TaskBlock,
    segmented_added_rows,
    segmented_embedding,
)
from tests.kernels.segmented import dense_weight, in_dtype

ROWS, WIDTH = 53, 40


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TABLE = _random(ROWS, WIDTH, seed=0)
BLOCKS = tuple(TaskBlock(_random(rank, ROWS, seed=1), _random(rank, WIDTH, seed=2)) for rank in (5, 7))
SEVERAL = SeveralTasks(BLOCKS, _random(12, 12, seed=4), _random(12, 12, seed=5), None)
DELTAS: dict[str, Delta] = {
    "base": BaseOnly(None),
    "one": OneTask(BLOCKS[1], _random(7, seed=3), None),
    "several": SEVERAL,
    "folded": FoldedSides(_random(6, WIDTH, seed=6), _random(6, ROWS, seed=7), None),
    "own": MaterialisedWeight(_random(ROWS, WIDTH, seed=8), None),
}


def _whole(delta: Delta) -> Tensor:
    """The segment's table, in float64."""
    return dense_weight(TABLE, delta)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-4), (torch.bfloat16, 1.0)])
def test_every_form_of_change(dtype: torch.dtype, atol: float) -> None:
    ids = torch.randint(0, ROWS, (31,), generator=torch.Generator().manual_seed(9))
    offsets = [0, 4, 4, 15, 30, 31]
    deltas = list(DELTAS.values())
    own = [
        OneTask(BLOCKS[1], deltas[1].singular_values.to(dtype), None)
        if isinstance(deltas[1], OneTask)
        else deltas[1],
        SEVERAL,
        FoldedSides(DELTAS["folded"].right.to(dtype), DELTAS["folded"].left.to(dtype), None),  # type: ignore[union-attr]
        MaterialisedWeight(DELTAS["own"].weight.to(dtype), None),  # type: ignore[union-attr]
    ]
    found = segmented_embedding(ids, TABLE.to(dtype), [deltas[0], *own], offsets)
    assert found.dtype == dtype
    wanted = torch.cat(
        [
            _whole(delta)[ids[start:stop]]
            for delta, start, stop in zip(deltas, offsets, offsets[1:], strict=False)
        ]
    )
    torch.testing.assert_close(found.double(), wanted, atol=atol, rtol=1e-2 if atol == 1.0 else 1e-5)


@pytest.mark.parametrize("name", DELTAS)
def test_a_row_has_the_bits_that_it_has_alone(name: str) -> None:
    ids = torch.randint(0, ROWS, (40,), generator=torch.Generator().manual_seed(9))
    whole = segmented_embedding(ids, TABLE, [DELTAS[name]], [0, 40])
    for count in (1, 2, 3, 5, 7, 8, 13):
        part = segmented_embedding(ids[:count], TABLE, [DELTAS[name]], [0, count])
        assert torch.equal(part, whole[:count])


def test_what_does_not_fit_is_refused() -> None:
    ids = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="1 segments over 3 rows do not fit offsets"):
        segmented_embedding(ids, TABLE, [DELTAS["base"]], [0, 2])


@pytest.mark.parametrize("name", ["one", "several"])
def test_blocks_of_16_bits_give_the_bits_of_the_same_numbers_in_32(name: str) -> None:
    ids = torch.arange(ROWS)
    narrow = tuple(in_dtype(block, torch.bfloat16) for block in BLOCKS)
    wide = tuple(in_dtype(block, torch.float32) for block in narrow)
    found, wanted = (
        segmented_embedding(
            ids,
            TABLE,
            [
                OneTask(blocks[1], _random(7, seed=3), None)
                if name == "one"
                else replace(SEVERAL, blocks=blocks)
            ],
            [0, ROWS],
        )
        for blocks in (narrow, wide)
    )
    assert torch.equal(found, wanted)


def test_rows_are_added_by_place_and_segment() -> None:
    x, tables = _random(6, 8, seed=1), [_random(4, 8, seed=2), _random(3, 8, seed=3)]
    places = torch.tensor([0, 3, -1, 2, -1, 0])
    found = segmented_added_rows(x, tables, places, [0, 3, 6])
    wanted = x + torch.stack(
        [tables[0][0], tables[0][3], torch.zeros(8), tables[1][2], torch.zeros(8), tables[1][0]]
    )
    assert torch.equal(found, wanted)


def test_a_change_that_only_linears_have_is_refused_and_not_dropped() -> None:
    small = SmallSides.of(SEVERAL)
    with pytest.raises(TypeError, match="a table has none"):
        segmented_embedding(torch.tensor([1, 2]), TABLE, [small], [0, 2])
