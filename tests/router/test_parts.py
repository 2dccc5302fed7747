"""Pools whose evidence contradicts that they are of one task: against every way to split them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from mass_serve.router import CONTRADICTION, Prior, Remembered, parts_of
from mass_serve.router.parts import split

TASKS = 4


def of_task(task: int, lead: float, count: int = 1) -> Tensor:
    """Evidence [count, T] that says so much for one task."""
    evidence = torch.zeros(count, TASKS)
    evidence[:, task] = lead
    return evidence


def pool(*evidence: Tensor) -> Tensor:
    return torch.cat(evidence)


def together(evidence: Tensor, weights: Tensor | None = None) -> list[set[int]]:
    """The samples of each part, in the order in which parts begin."""
    found = split(evidence, torch.ones(len(evidence)) if weights is None else weights)[0].tolist()
    return [{row for row, own in enumerate(found) if own == part} for part in dict.fromkeys(found)]


def entropy(share: float) -> float:
    return 0.0 if share in (0, 1) else -share * math.log(share) - (1 - share) * math.log(1 - share)


@pytest.mark.parametrize("seed", range(20))
def test_the_gain_is_the_largest_of_all_ways_to_move_samples_to_another_task(seed: int) -> None:
    evidence = 4 * torch.randn(5, TASKS, generator=torch.Generator().manual_seed(seed))
    best = int(evidence.sum(0).argmax())
    gains = [
        float((evidence[list(moved), task] - evidence[list(moved), best]).sum()) - 5 * entropy(count / 5)
        for task in range(TASKS)
        for count in range(1, 5)
        for moved in itertools.combinations(range(5), count)
    ]
    assert split(evidence, torch.ones(5))[1] == pytest.approx(max(gains), abs=1e-4)


def test_a_pool_that_agrees_stays_whole() -> None:
    assert together(pool(of_task(1, 3.0, 7), of_task(2, 3.0))) == [set(range(8))]


def test_a_clear_stranger_is_a_part_of_its_own() -> None:
    assert together(pool(of_task(1, 3.0, 3), of_task(2, 20.0), of_task(1, 3.0, 3))) == [
        {0, 1, 2, 4, 5, 6},
        {3},
    ]


def test_a_stranger_must_be_the_clearer_the_more_agree_without_it() -> None:
    lead = CONTRADICTION + 3 * entropy(1 / 3) + 0.1
    assert len(together(pool(of_task(1, 9.0, 2), of_task(2, lead)))) == 2
    assert len(together(pool(of_task(1, 9.0, 30), of_task(2, lead)))) == 1


def test_halves_of_two_tasks_are_told_by_what_they_say_together() -> None:
    assert together(pool(of_task(0, 4.0, 4), of_task(3, 4.0, 4))) == [{0, 1, 2, 3}, {4, 5, 6, 7}]


def test_a_compromise_between_two_tasks_is_given_up() -> None:
    first, second = torch.tensor([[20.0, 15.0, 0.0, 0.0]]), torch.tensor([[0.0, 15.0, 20.0, 0.0]])
    evidence = pool(first.expand(3, -1), second.expand(3, -1)) - torch.tensor([0.0, 0.0, 0.0, 50.0])
    assert int(evidence.sum(0).argmax()) == 1
    assert split(evidence, torch.ones(6))[0].tolist() == [0, 0, 0, 2, 2, 2]


def test_as_many_tasks_as_samples_are_told_apart() -> None:
    evidence = pool(*(of_task(task, 40.0) for task in range(TASKS)))
    assert split(evidence, torch.ones(TASKS))[0].tolist() == [0, 1, 2, 3]


def test_old_evidence_contradicts_less() -> None:
    evidence = pool(of_task(2, 20.0), of_task(1, 6.0, 3))
    assert len(together(evidence)) == 2
    assert len(together(evidence, torch.tensor([0.2, 1.0, 1.0, 1.0]))) == 1


def test_what_is_not_finite_splits_nothing() -> None:
    broken = pool(of_task(1, 40.0), of_task(2, 40.0), torch.full((1, TASKS), torch.nan))
    assert len(together(broken)) == 1


def test_tasks_that_are_no_candidates_are_never_chosen() -> None:
    evidence = pool(of_task(0, 30.0, 2), of_task(2, 30.0, 2)).index_fill(1, torch.tensor([3]), -torch.inf)
    assert split(evidence, torch.ones(4))[0].tolist() == [0, 0, 2, 2]


def test_parts_are_numbered_from_the_first_sample_and_summed_by_themselves() -> None:
    evidence = pool(of_task(2, 20.0), of_task(3, 5.0), of_task(1, 20.0, 2), of_task(2, 20.0))
    prior = Prior(torch.tensor([0, 1, 0, 0, 0]))
    parts = parts_of(evidence, prior)
    assert parts.numbers.tolist() == [0, 0, 1, 1, 0]
    summed = parts.summed(evidence)
    assert torch.equal(summed[0], evidence[0] + evidence[4])
    assert torch.equal(summed[2], evidence[2] + evidence[3])
    assert torch.equal(summed[1], evidence[1])
    assert parts.gains[1] == -torch.inf
    assert (parts.gains[[0, 2, 3, 4]] >= CONTRADICTION).all()


def test_what_is_remembered_counts_by_its_weight_in_its_own_part() -> None:
    remembered = Remembered(pool(of_task(3, 2.0), of_task(1, 12.0, 2)), torch.tensor([0.5, 0.5, 1.0]))
    evidence = pool(of_task(1, 1.0), of_task(0, 30.0))
    parts = parts_of(evidence, Prior(torch.tensor([7, 7]), {7: remembered}))
    assert parts.numbers.tolist() == [0, 1], "the newest that is remembered is of part 0"
    summed = parts.summed(evidence)
    torch.testing.assert_close(summed[0], torch.tensor([0.0, 1.0 + 0.5 * 12 + 12, 0.0, 0.5 * 2]))
    assert torch.equal(summed[1], evidence[1])


def test_a_pool_has_the_same_bits_beside_any_other() -> None:
    evidence = 5 * torch.randn(6, TASKS, generator=torch.Generator().manual_seed(3))
    numbers = torch.tensor([0, 0, 0, 9, 9, 9])
    both = parts_of(evidence, Prior(numbers)).summed(evidence)
    alone = parts_of(evidence[3:], Prior(numbers[3:])).summed(evidence[3:])
    assert torch.equal(both[3:], alone)
