"""Head scores against plain formulations, and the same of heads of few and of many classes."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from mass_serve.router import HeadGeometry

WIDTH = 32


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(normal(*shape, seed=seed), dim=-1)


def test_the_room_of_a_head_is_what_an_embedding_at_a_class_vector_has_above_the_mean_cosine() -> None:
    directions = torch.nn.functional.normalize(unit(7, WIDTH) + 0.2, dim=1)
    cosines = (directions @ directions.T).double().numpy()
    geometry = HeadGeometry.of(directions)
    assert geometry.room == pytest.approx(float((cosines.diagonal() - cosines.mean(1)).mean()), rel=1e-5)
    assert geometry.chance == pytest.approx(NormalDist().inv_cdf((7 - 0.375) / 7.25))
    assert geometry.dimensions == WIDTH


def test_head_scores_are_the_largest_cosine_and_how_far_it_stands_out() -> None:
    cosines = torch.tensor([[0.1, 0.9, 0.2, 0.0], [0.3, 0.3, 0.3, 0.3]])
    head_scores = HeadGeometry(room=0.8, chance=1.0, dimensions=25).scores(cosines)
    np.testing.assert_allclose(head_scores[:, 0], [0.9, 0.3])
    row = cosines[0].double().numpy()
    assert float(head_scores[0, 1]) == pytest.approx((0.9 - row.mean()) / row.std() - 1.0, rel=1e-4)
    assert float(head_scores[0, 2]) == pytest.approx((0.9 - row.mean()) / 0.8 - 1.0 / math.sqrt(20), rel=1e-4)
    np.testing.assert_allclose(head_scores[1, 1:], [-1.0, -1.0 / math.sqrt(20)], atol=1e-2)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_head_without_room_has_no_peak(classes: int) -> None:
    """One class, or all alike: there is nothing to stand out from, and nothing is divided by zero."""
    geometry = HeadGeometry.of(unit(1, WIDTH).expand(classes, -1))
    found = geometry.scores(torch.full((2, classes), 0.4))
    by_chance = geometry.chance / math.sqrt(geometry.room * WIDTH)
    np.testing.assert_allclose(found, [[0.4, -geometry.chance, -by_chance]] * 2, atol=1e-2)


@pytest.mark.parametrize("together", [0.0, 2.0])
def test_random_heads_of_few_and_many_classes_stand_out_alike(together: float) -> None:
    """Also those whose class vectors lie close together, as those of a text encoder do."""
    dimensions = 256
    common = together * unit(1, dimensions, seed=9)
    embeddings = unit(2000, dimensions)
    found = []
    for classes in (10, 400):
        directions = torch.nn.functional.normalize(unit(classes, dimensions, seed=classes) + common, dim=1)
        found.append(HeadGeometry.of(directions).scores(embeddings @ directions.T).mean(0))
    for head_scores in found:
        assert float(head_scores[1]) == pytest.approx(0.0, abs=0.15)
        assert float(head_scores[2]) == pytest.approx(0.0, abs=0.02)
