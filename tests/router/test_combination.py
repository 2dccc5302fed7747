"""How much a calibration counts: weights of a constant, and those that inputs of known tasks tell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mass_serve.router import Combination, fit_combination
from mass_serve.router.combination import WEIGHT
from mass_serve.router.head_scores import nearness
from mass_serve.router.selection import standardised

TASKS, KINDS, PARTS = 3, 2, 10


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def observed(images: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Log coefficients [n, T] that say nothing, shares [n, K, T] whose first kind can tell, and tasks."""
    tasks = torch.arange(images) % TASKS
    own = torch.nn.functional.one_hot(tasks, TASKS)
    shares = torch.sigmoid(
        normal(images, KINDS, TASKS, seed=seed) + own.unsqueeze(1) * torch.tensor([[3.0], [0]])
    )
    return torch.zeros(images, TASKS).log_softmax(1), shares, tasks


def fit(coefficients: Tensor, says: Tensor, kinds: Tensor, tasks: Tensor) -> Combination:
    return fit_combination(coefficients, says, kinds, tasks, torch.arange(len(tasks)) // TASKS % PARTS)


def fitted(images: int, seed: int = 0) -> Combination:
    coefficients, kinds, tasks = observed(images, seed)
    return fit(coefficients, torch.zeros(images, TASKS), kinds, tasks)


def right(found: Combination, images: int = 300, seed: int = 7) -> float:
    """How often the task is right, of new images."""
    coefficients, kinds, tasks = observed(images, seed)
    every = torch.ones(images, TASKS, dtype=torch.bool)
    added = found.added(torch.zeros(images, TASKS), kinds, every)
    return float(((coefficients + added).argmax(1) == tasks).float().mean())


def test_what_can_tell_the_task_counts_and_what_cannot_does_not() -> None:
    found = fitted(600)
    assert float(found.kinds[0]) > 1
    assert abs(float(found.kinds[1])) < 0.2
    assert found.probability == 0
    assert right(found) > 0.9


def test_more_images_are_believed_more() -> None:
    weights = [float(fitted(images).kinds[0]) for images in (6, 24, 600)]
    assert 0 < weights[0] < weights[1] < weights[2]


def test_coefficients_that_are_right_stay_as_they_are() -> None:
    _, kinds, tasks = observed(300)
    coefficients = (12.0 * torch.nn.functional.one_hot(tasks, TASKS)).log_softmax(1)
    found = fit(coefficients, torch.zeros(300, TASKS), kinds, tasks)
    assert float(found.kinds.abs().max()) < 0.5
    assert float(found.offsets.abs().max()) < 0.2


def test_how_often_a_task_was_drawn_is_no_sign_of_it() -> None:
    """Nine times as many images of one task, of which nothing else tells: its offset stays near 0."""
    tasks = torch.tensor([0] * 90 + [1] * 10 + [2] * 10)
    kinds = torch.full((110, KINDS, TASKS), 0.5)
    found = fit(torch.zeros(110, TASKS), torch.zeros(110, TASKS), kinds, tasks)
    assert float(found.offsets.abs().max()) < 1e-3


def test_probabilities_count_as_far_as_they_are_right() -> None:
    coefficients, kinds, tasks = observed(600)
    own = torch.nn.functional.one_hot(tasks, TASKS)
    says = (2.0 * own + normal(600, TASKS, seed=5)).log_softmax(1)
    assert fit(coefficients, says, kinds[:, 1:], tasks).probability > 0.2
    noise = normal(600, TASKS, seed=6).log_softmax(1)
    assert abs(fit(coefficients, noise, kinds[:, 1:], tasks).probability) < 0.1


def test_probabilities_never_speak_against_a_task() -> None:
    """As of inputs that are another task's too: the others of the same content are all that one's."""
    coefficients, kinds, tasks = observed(600)
    says = (-2.0 * torch.nn.functional.one_hot(tasks, TASKS)).log_softmax(1)
    found = fit(coefficients, says, kinds, tasks)
    assert found.probability == 0
    assert float(found.kinds[0]) > 1


def test_what_routes_unseen_images_no_better_does_not_count() -> None:
    """Coefficients that are surer than right; what they should give up is another kind's noise."""
    _, kinds, tasks = observed(300)
    guessed = torch.where(torch.arange(300) % 5 > 0, tasks, (tasks + 1) % TASKS)
    coefficients = (9.0 * torch.nn.functional.one_hot(guessed, TASKS)).log_softmax(1)
    found = fit(coefficients, torch.zeros(300, TASKS), kinds[:, 1:], tasks)
    assert not found.numbers(KINDS).any()


def test_few_images_do_not_take_back_what_coefficients_are_too_sure_of() -> None:
    """Two tasks have the same images, all said to be the first one's, by the evidence of the first kind."""
    tasks = torch.arange(48) % TASKS
    said = torch.nn.functional.one_hot(torch.where(tasks == 1, 0, tasks), TASKS)
    kinds = torch.stack([0.2 + 0.7 * said, normal(48, TASKS, seed=4).sigmoid()], dim=1)
    found = fit((9.0 * said).log_softmax(1), torch.zeros(48, TASKS), kinds, tasks)
    assert float(found.numbers(KINDS).abs().max()) < 0.5


def test_a_gain_that_may_be_chance_does_not_count() -> None:
    """Few images, of which a kind tells a little: what it would win on others is within its error."""
    generator = torch.Generator().manual_seed(1)
    tasks = torch.arange(24) % TASKS
    kinds = torch.rand(24, KINDS, TASKS, generator=generator)
    coefficients = torch.zeros(24, TASKS).log_softmax(1)
    assert not fit(coefficients, torch.zeros(24, TASKS), kinds, tasks).numbers(KINDS).any()


def test_what_is_added_is_the_stated_sum_over_the_candidates() -> None:
    combination = Combination(0.5, torch.tensor([2.0, -1.0]), torch.tensor([0.1, 0.2, 0.3]))
    _, kinds, _ = observed(4)
    says = normal(4, TASKS, seed=3).log_softmax(1)
    candidates = torch.tensor([[True, True, True], [True, False, True]] * 2)
    units = [standardised(nearness(kinds[:, kind]), candidates) for kind in range(KINDS)]
    expected = 0.5 * says + 2 * units[0] - units[1] + combination.offsets
    found = combination.added(says, kinds, candidates)
    torch.testing.assert_close(found, expected.masked_fill(~candidates, 0.0))
    plain = Combination.unlabelled(KINDS, TASKS).added(says, kinds, candidates)
    assert torch.equal(plain, (WEIGHT * says).masked_fill(~candidates, 0.0))


@pytest.mark.parametrize("tasks", [[0, 1, 2], [2, 0]])
def test_numbers_are_the_weights_and_fewer_kinds_have_none(tasks: list[int]) -> None:
    weights = Combination(0.5, torch.tensor([2.0]), torch.tensor([0.1, 0.2, 0.3])).of_tasks(tasks)
    numbers = weights.numbers(kinds=3)
    assert torch.equal(numbers, torch.tensor([0.5, 2.0, 0.0, 0.0, *weights.offsets]).double())
    again = Combination.of_numbers(numbers, len(tasks)).of_kinds(1)
    assert again.probability == 0.5
    assert torch.equal(again.kinds, weights.kinds)
    assert torch.equal(again.offsets, weights.offsets)
