"""Ranks by what they keep, against the whole spectrum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mass_serve.merging.formats.ranks import energies_of, level_within, rank_above, rank_keeping


@pytest.mark.parametrize("shape", [(12, 12), (40, 9), (9, 40), (1, 5)])
def test_energies_are_squared_singular_values(shape: tuple[int, int]) -> None:
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    expected = torch.linalg.svdvals(delta.double()).square()
    torch.testing.assert_close(energies_of(delta), expected, atol=1e-18, rtol=1e-9)


def test_energies_that_are_rounding_are_none() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(30, 2, generator=generator) @ torch.randn(2, 20, generator=generator)
    # The sum of float32 products is not of rank 2 itself: its rounding is energy, if little.
    exact = delta.bfloat16().double()[:, :1] @ torch.ones(1, 20).double()
    assert int((energies_of(exact) > 0).sum()) == 1
    assert not energies_of(torch.zeros(30, 20)).any()


def test_the_smallest_rank_that_keeps_a_share() -> None:
    energies = torch.tensor([5.0, 3.0, 1.0, 1.0, 0.0])
    shares = {0.01: 1, 0.5: 1, 0.51: 2, 0.8: 2, 0.81: 3, 0.9: 3, 0.91: 4, 1.0: 4}
    assert {share: rank_keeping(energies, share) for share in shares} == shares


def test_nothing_is_kept_of_nothing() -> None:
    assert rank_keeping(torch.zeros(4), 1.0) == rank_keeping(torch.zeros(0), 1.0) == 0


class TestLevel:
    # Per byte 10, 8, 3, 2, 0.
    ENERGIES, COSTS = torch.tensor([20.0, 8.0, 9.0, 2.0, 0.0]), torch.tensor([2.0, 1.0, 3.0, 1.0, 5.0])

    @pytest.mark.parametrize(
        ("budget", "kept"), [(1.9, 0), (2, 1), (2.9, 1), (3, 2), (5.9, 2), (6, 3), (7, 4), (1e9, 4)]
    )
    def test_the_best_by_the_byte_are_kept_within_the_budget(self, budget: float, kept: int) -> None:
        level = level_within(self.ENERGIES, self.COSTS, budget)
        assert int((level < self.ENERGIES / self.COSTS).sum()) == kept

    def test_equal_ones_are_kept_together_or_not_at_all(self) -> None:
        """Two tasks of one checkpoint, say."""
        energies, costs = torch.tensor([4.0, 2.0, 2.0, 1.0]), torch.ones(4)
        assert rank_above(energies, 1, level_within(energies, costs, 2)) == 1
        assert rank_above(energies, 1, level_within(energies, costs, 3)) == 3

    def test_rounding_moves_nothing_across_it(self) -> None:
        level = level_within(self.ENERGIES, self.COSTS, 6)
        for noise in (1 - 1e-6, 1 + 1e-6):
            assert int((noise * self.ENERGIES / self.COSTS > level).sum()) == 3

    @settings(max_examples=60)
    @given(seed=st.integers(0, 2**16), share=st.floats(0, 1.2))
    def test_is_spent_but_for_the_next_one(self, seed: int, share: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        energies = torch.rand(50, generator=generator, dtype=torch.float64)
        costs = torch.randint(1, 9, (50,), generator=generator).double()
        budget = share * float(costs.sum())
        level = level_within(energies, costs, budget)
        gains = energies / costs
        assert costs[gains > level].sum() <= budget
        if level > 0:
            following = gains[gains <= level].max()
            assert costs[gains >= following].sum() > budget
        else:
            assert (gains > level).all()
