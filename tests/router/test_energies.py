"""What energies say, against plain formulations: of whole fine-tunings, of adapters, and of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mass_serve.kernels import subspace_energies
from mass_serve.router import LinearSubspaces, is_of_low_rank, own_rank
from mass_serve.router.energies import EnergyEvidence
from mass_serve.router.weights import WEIGHTS

WIDTH, SAMPLES, TOKENS = 32, 5, 7


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(rank: int, seed: int) -> Tensor:
    basis: Tensor = torch.linalg.qr(normal(WIDTH, rank, seed=seed)).Q
    return basis.T


def subspaces(ranks: list[int], *, profiled: bool, seed: int = 0) -> LinearSubspaces:
    blocks = [rows(rank, seed + task) for task, rank in enumerate(ranks)]
    values = [torch.linspace(2.0, 0.5, rank) for rank in ranks]
    return LinearSubspaces.of(blocks, values, profiled=profiled)


def every(tasks: int) -> Tensor:
    return torch.ones(SAMPLES, tasks, dtype=torch.bool)


def test_each_task_has_its_own_directions_and_no_others() -> None:
    linear = subspaces([6, 2, 0], profiled=False)
    x = normal(SAMPLES, TOKENS, WIDTH, seed=3)
    assert linear.ranks == (6, 2, 0)
    energies = subspace_energies(x, linear.directions)
    for task, rank in enumerate((6, 2)):
        inside = (x @ rows(rank, task).T).square().sum(2) / x.square().sum(2)
        torch.testing.assert_close(energies[:, task], inside.mean(1))
    assert energies[:, 2].eq(0).all()


def test_a_profile_weighs_directions_by_their_singular_values() -> None:
    linear = subspaces([4, 3], profiled=True)
    x = normal(SAMPLES, TOKENS, WIDTH, seed=3)
    _, weighted = subspace_energies(x, linear.directions).chunk(2, dim=1)
    for task, rank in enumerate((4, 3)):
        values = torch.linspace(2.0, 0.5, rank)
        along = (x @ rows(rank, task).T).square() / x.square().sum(2, keepdim=True)
        torch.testing.assert_close(weighted[:, task], (along * values / values.sum()).sum(2).mean(1))


def test_whole_fine_tunings_are_compared_by_what_they_explain_beyond_chance() -> None:
    linears = [subspaces([8, 4], profiled=False, seed=seed) for seed in (0, 10)]
    energies = normal(SAMPLES, 2, 2, seed=4).sigmoid()
    judge = EnergyEvidence(linears, torch.tensor([False, False]))
    chance = np.array([8, 4]) / WIDTH
    expected = WEIGHTS.share * np.log(energies.numpy() / chance).mean(1)
    np.testing.assert_allclose(judge.scores(energies, every(2), WEIGHTS), expected, atol=1e-3)
    assert judge.tells


def test_where_a_whole_fine_tuning_left_a_matrix_alone_nothing_is_compared() -> None:
    linears = [subspaces([4, 4], profiled=False), subspaces([4, 0], profiled=False, seed=10)]
    judge = EnergyEvidence(linears, torch.tensor([False, False]))
    energies = normal(SAMPLES, 2, 2, seed=4).sigmoid()
    other = energies.clone()
    other[:, 1] = 0.5
    assert torch.equal(judge.scores(energies, every(2), WEIGHTS), judge.scores(other, every(2), WEIGHTS))
    nothing = EnergyEvidence(linears[1:], torch.tensor([False, False]))
    assert not nothing.tells
    assert nothing.scores(energies[:, 1:], every(2), WEIGHTS).eq(0).all()
    assert nothing.likeness(energies[:, 1:]).eq(1).all()


def inputs_of_an_adapter(seed: int) -> Tensor:
    """Tokens that lie along the directions that changed most of `rows(4, seed)`, and else anywhere."""
    scale = torch.tensor([4.0, 2.0, 0.5, 0.25])
    return normal(SAMPLES, TOKENS, WIDTH, seed=5) + (normal(SAMPLES, TOKENS, 4, seed=6) * scale) @ rows(
        4, seed
    )


@pytest.mark.parametrize("task", [1, 2])
def test_an_adapter_is_found_by_which_of_its_directions_are_used(task: int) -> None:
    """Beside a whole fine-tuning whose directions explain more of any input."""
    linear = subspaces([8, 4, 4], profiled=True)
    judge = EnergyEvidence([linear], torch.tensor([False, True, True]))
    null = subspace_energies(normal(64, TOKENS, WIDTH, seed=7), linear.directions)
    judge.measure_from(judge.drawn(null.unsqueeze(1)))
    energies = subspace_energies(inputs_of_an_adapter(task), linear.directions).unsqueeze(1)
    assert judge.scores(energies, every(3), WEIGHTS).argmax(1).eq(task).all()
    assert not judge.tells, "early evidence alone tells too little of adapters"
    likeness, to_noise = judge.likeness(energies), judge.likeness(null.unsqueeze(1)).mean(0)
    assert likeness[:, task].min() > 2 * to_noise[task]
    assert (likeness[:, 3 - task] < likeness[:, task]).all()


def test_likeness_is_what_a_task_explains_beyond_drawn_inputs() -> None:
    judge = EnergyEvidence([subspaces([8, 4], profiled=False)], torch.tensor([False, False]))
    drawn, energies = normal(9, 1, 2, seed=7).sigmoid(), normal(SAMPLES, 1, 2, seed=4).sigmoid()
    judge.measure_from(judge.drawn(drawn))
    beyond = np.log(energies.numpy()[:, 0]) - np.log(drawn.numpy()[:, 0]).mean(0)
    expected = ((1 + 4 * beyond / (1 + np.abs(4 * beyond))) / 2) ** 2
    np.testing.assert_allclose(judge.likeness(energies), expected, atol=1e-4)


def test_noise_speaks_for_no_adapter() -> None:
    linear = subspaces([4, 4], profiled=True)
    judge = EnergyEvidence([linear], torch.tensor([True, True]))
    null = subspace_energies(normal(64, TOKENS, WIDTH, seed=7), linear.directions).unsqueeze(1)
    judge.measure_from(judge.drawn(null))
    scores = judge.scores(null, torch.ones(64, 2, dtype=torch.bool), WEIGHTS)
    assert scores.mean(0).abs().max() < 1e-3


def test_tasks_that_are_no_candidates_do_not_speak_for_adapters() -> None:
    linear = subspaces([8, 8, 4], profiled=True)
    judge = EnergyEvidence([linear], torch.tensor([False, False, True]))
    energies = subspace_energies(normal(SAMPLES, TOKENS, WIDTH, seed=3), linear.directions).unsqueeze(1)
    mask = every(3)
    mask[:, 0] = False
    energies[:, 0, 0] = 0.9
    scores = judge.scores(energies, mask, WEIGHTS)
    energies[:, 0, 0] = 0.1
    assert torch.equal(scores[:, 1:], judge.scores(energies, mask, WEIGHTS)[:, 1:])


def test_directions_that_rounding_left_are_not_a_tasks_own() -> None:
    assert own_rank(torch.tensor([4.0, 2.0, 1.0, 0.2])) == 4
    assert own_rank(torch.tensor([4.0, 2.0, 1e-6, 1e-7])) == 2
    assert own_rank(torch.zeros(4)) == 0
    assert own_rank(torch.empty(0)) == 0


def test_a_change_is_of_low_rank_where_few_directions_hold_all_of_it() -> None:
    assert is_of_low_rank(8, 64, 1.0)
    assert not is_of_low_rank(8, 64, 0.999), "cut"
    assert not is_of_low_rank(64, 64, 1.0), "nothing could be cut"
    assert not is_of_low_rank(8, 64, None), "unknown, of format version 1"


def test_energies_speak_neither_for_nor_against_a_task_without_directions() -> None:
    """It was created of other tasks: as good as the best of them that is a candidate, and as like."""
    linear, alone = subspaces([6, 4, 0], profiled=False), subspaces([6, 4], profiled=False)
    energies = subspace_energies(normal(SAMPLES, TOKENS, WIDTH, seed=3), linear.directions)[:, None]
    evidence = EnergyEvidence([linear], torch.tensor([False, False, False]))
    of_others = EnergyEvidence([alone], torch.tensor([False, False]))
    expected = of_others.scores(energies[..., :2], every(2), WEIGHTS)
    found = evidence.scores(energies, every(3), WEIGHTS)
    torch.testing.assert_close(found[:, :2], expected)
    torch.testing.assert_close(found[:, 2], expected.amax(1))
    without_first = torch.tensor([False, True, True]).expand(SAMPLES, -1)
    torch.testing.assert_close(evidence.scores(energies, without_first, WEIGHTS)[:, 2], expected[:, 1])
    like = evidence.likeness(energies)
    torch.testing.assert_close(like[:, 2], like[:, :2].amax(1))
    assert of_others.tells
    assert not evidence.tells  # so that no image takes another task before the heads were asked


def test_a_task_without_directions_has_the_best_profile_beside_adapters() -> None:
    linear = subspaces([6, 4, 0], profiled=True)
    energies = subspace_energies(normal(SAMPLES, TOKENS, WIDTH, seed=3), linear.directions)[:, None]
    scores = EnergyEvidence([linear], torch.tensor([True, True, False])).scores(energies, every(3), WEIGHTS)
    torch.testing.assert_close(scores[:, 2], scores[:, :2].amax(1))
