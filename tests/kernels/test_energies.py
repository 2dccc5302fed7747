"""Energies against the projection written out in float64."""

from __future__ import annotations

import pytest
import torch

from mass_serve.kernels import TaskDirections, subspace_energies, widened
from mass_serve.kernels.energies import reference
from tests.kernels.projectors import random_projectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "tasks", "rank", "width"), [(1, 1, 1, 7), (17, 8, 16, 128), (5, 20, 38, 768), (2, 2, 38, 2049)]
)
def test_it_is_the_mean_share_within_each_subspace(
    tokens: int, tasks: int, rank: int, width: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(width)
    basis, x = random_projectors(tasks, rank, width), (10 * torch.randn(3, tokens, width)).to(dtype)
    within = (x.double()[:, None] @ basis.transpose(1, 2)).square().sum(3)  # [B, T, L]
    expected = (within / x.double().square().sum(2)[:, None]).mean(2)
    energies = subspace_energies(x, TaskDirections.of(list(basis.float())))
    assert energies.dtype == torch.float32
    torch.testing.assert_close(energies.double(), expected, atol=1e-6, rtol=1e-5)


def test_without_directions_there_is_no_energy() -> None:
    nothing = TaskDirections.of([torch.zeros(0, 16)] * 2)
    assert torch.equal(subspace_energies(torch.randn(3, 5, 16), nothing), torch.zeros(3, 2))


def test_a_sample_has_the_same_bits_in_every_batch() -> None:
    torch.manual_seed(0)
    basis, x = TaskDirections.of(list(random_projectors(4, 9, 100).float())), torch.randn(19, 7, 100)
    whole = subspace_energies(x, basis)
    for samples in range(1, 19):
        assert torch.equal(subspace_energies(x[19 - samples :], basis), whole[19 - samples :])


def test_profiles_weigh_directions_and_ranks_differ() -> None:
    torch.manual_seed(0)
    ranks, x = (5, 0, 2, 9), torch.randn(6, 7, 100)
    rows = [random_projectors(1, rank, 100)[0].float() for rank in ranks]
    weights = [torch.rand(rank) for rank in ranks]
    energies, profiles = subspace_energies(x, TaskDirections.of(rows, weights)).chunk(2, dim=1)
    for task in range(len(ranks)):
        along = (x @ rows[task].T).square() / x.square().sum(2, keepdim=True)
        torch.testing.assert_close(energies[:, task], along.sum(2).mean(1))
        torch.testing.assert_close(profiles[:, task], (along * weights[task]).sum(2).mean(1))


def test_hundreds_of_tasks_in_16_bits_are_what_they_are_in_32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    rows, x = list(random_projectors(300, 7, 96).half().float()), torch.randn(5, 6, 96)
    in_half = subspace_energies(x, TaskDirections.of(rows, dtype=torch.float16))
    monkeypatch.setattr(reference, "ROWS_AT_ONCE", 1 << 20)
    assert torch.equal(subspace_energies(x, TaskDirections.of(rows)), in_half)


def test_two_parts_of_bfloat16_hold_directions_to_16_bits() -> None:
    torch.manual_seed(0)
    rows = list(random_projectors(3, 9, 100).float())
    directions = TaskDirections.of(rows, dtype=torch.bfloat16)
    assert (directions.width, directions.nbytes) == (100, TaskDirections.of(rows).nbytes)
    torch.testing.assert_close(widened(directions.rows)[:27], torch.cat(rows), atol=0, rtol=2**-16)
    x = torch.randn(5, 6, 100)
    exact = subspace_energies(x, TaskDirections.of(rows))
    torch.testing.assert_close(subspace_energies(x, directions), exact, atol=1e-6, rtol=2e-5)
    own = directions.select(torch.tensor([2, 0]))
    assert torch.equal(subspace_energies(x, own), subspace_energies(x, directions)[:, [2, 0]])


def test_a_task_has_the_same_bits_beside_any_others() -> None:
    torch.manual_seed(0)
    rows = [random_projectors(1, task % 9, 96)[0].float() for task in range(300)]
    directions = TaskDirections.of(rows, [torch.rand(len(own)) for own in rows], torch.float16)
    x = torch.randn(5, 6, 96)
    whole, profiles = subspace_energies(x, directions).chunk(2, dim=1)
    for own in ([3], [0], [299, 1], [*range(0, 300, 7)], [*range(150)]):
        found, weighted = subspace_energies(x, directions.select(torch.tensor(own))).chunk(2, dim=1)
        assert torch.equal(found, whole[:, own])
        assert torch.equal(weighted, profiles[:, own])
