"""Head scores against plain formulations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mass_serve.kernels.heads import LEAST_COMMON
from mass_serve.router import HeadGeometry

WIDTH = 32


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(normal(*shape, seed=seed), dim=-1)


def plainly(embeddings: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The largest cosine, and the largest without what the class vectors have in common."""
    x, w = embeddings.double(), directions.double()
    mean = w.mean(0)
    left = x - mean * (x @ mean).unsqueeze(1) / (mean.square().sum() + LEAST_COMMON)
    centred = torch.nn.functional.cosine_similarity(left.unsqueeze(1), (w - mean).unsqueeze(0), dim=2)
    return (x @ w.T).amax(1), centred.amax(1)


@pytest.mark.parametrize("together", [0.0, 0.3, 5.0])
def test_head_scores_are_the_largest_cosine_with_and_without_the_common_direction(together: float) -> None:
    common = together * unit(1, WIDTH, seed=9)
    directions = torch.nn.functional.normalize(unit(7, WIDTH) + common, dim=1)
    embeddings = torch.nn.functional.normalize(unit(50, WIDTH, seed=1) + common, dim=1)
    found = HeadGeometry.of(directions).scores(embeddings @ directions.T)
    for of_kind, expected in zip(found.unbind(1), plainly(embeddings, directions), strict=True):
        np.testing.assert_allclose(of_kind, expected, atol=2e-3)


def test_what_all_classes_have_in_common_tells_the_task_and_not_how_clear_a_class_is() -> None:
    common, own = torch.eye(WIDTH)[0], torch.eye(WIDTH)[1:5]
    geometry = HeadGeometry.of(torch.nn.functional.normalize(common + 0.3 * own, dim=1))
    directions = torch.nn.functional.normalize(common + 0.3 * own, dim=1)
    of_the_task, of_a_class = common.unsqueeze(0), directions[:1]
    undecided, decided = (geometry.scores(x @ directions.T)[0] for x in (of_the_task, of_a_class))
    assert undecided[0] > 0.9
    assert undecided[1] < 0.1
    assert decided[1] > 0.9


@pytest.mark.parametrize("classes", [1, 3])
def test_a_head_whose_classes_are_all_alike_has_none_that_stands_out(classes: int) -> None:
    directions = unit(1, WIDTH).expand(classes, -1)
    found = HeadGeometry.of(directions).scores(unit(5, WIDTH, seed=2) @ directions.T)
    assert found.isfinite().all()
    assert found[:, 1].abs().max() < 1e-2


def test_two_opposite_class_vectors_have_nothing_in_common() -> None:
    direction = unit(1, WIDTH)
    directions = torch.cat([direction, -direction])
    x = unit(5, WIDTH, seed=2)
    found = HeadGeometry.of(directions).scores(x @ directions.T)
    torch.testing.assert_close(found[:, 1], found[:, 0])


def test_a_label_that_is_not_there_says_as_much_of_the_task_as_one_that_is() -> None:
    directions = unit(6, WIDTH)
    geometry = HeadGeometry.of(directions, multi_label=True)
    x = torch.nn.functional.normalize(unit(40, WIDTH, seed=3) - 2 * directions.mean(0), dim=1)
    torch.testing.assert_close(geometry.scores(x @ directions.T), geometry.scores(-x @ directions.T))
    assert (geometry.scores(x @ directions.T) > 0).all()
    assert (HeadGeometry.of(directions).scores(x @ directions.T)[:, 0] < 0).any()


def test_one_such_label_is_two_opposite_classes() -> None:
    direction, x = unit(1, WIDTH), unit(40, WIDTH, seed=3)
    both = torch.cat([direction, -direction])
    as_label = HeadGeometry.of(direction, multi_label=True).scores(x @ direction.T)
    as_classes = HeadGeometry.of(both).scores(x @ both.T)
    torch.testing.assert_close(as_label[:, 0], as_classes[:, 0])


@pytest.mark.parametrize("together", [0.0, 0.3, 5.0])
def test_of_any_number_of_labels_the_largest_cosines_by_size_count(together: float) -> None:
    common = together * unit(1, WIDTH, seed=9)
    directions = torch.nn.functional.normalize(unit(7, WIDTH) + common, dim=1)
    x = torch.nn.functional.normalize(unit(50, WIDTH, seed=1) - common, dim=1)
    found = HeadGeometry.of(directions, multi_label=True).scores(x @ directions.T)
    above, below = (plainly(sign * x, directions) for sign in (1, -1))
    for of_kind, one, other in zip(found.unbind(1), above, below, strict=True):
        np.testing.assert_allclose(of_kind, torch.maximum(one, other), atol=2e-3)
