"""Calibration: the discriminant against scikit-free formulas, its marginals, and what it may not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from router import (
    LEAST_IMAGES,
    MODES,
    Calibration,
    CalibrationFit,
    EvidenceRouter,
    RouterConfig,
    SubspaceRouter,
)
from router.calibration import LEAST_LOG_PROBABILITY, WEIGHT, _shrunk

KINDS, TASKS, IMAGES = 4, 3, 400


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def evidence(images: int = IMAGES, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Evidence [n, K, T] in which a task's own images have more of it, and the task of each."""
    tasks = torch.arange(images) % TASKS
    noise = 0.3 * normal(images, KINDS, TASKS, seed=seed)
    own = torch.nn.functional.one_hot(tasks, TASKS).unsqueeze(1)
    shares = (noise[:, :-1] + 0.5 * own - 2).exp()
    cosines = 0.2 + 0.1 * own + 0.1 * noise[:, -1:]
    return torch.cat([shares, cosines], dim=1).float(), tasks


def fitted(images: int = IMAGES) -> Calibration:
    kinds, tasks = evidence(images)
    fit = CalibrationFit(KINDS, TASKS)
    for part in range(0, images, 64):  # in parts, as it is used
        rows = slice(part, part + 64)
        fit.add(kinds[rows], torch.nn.functional.one_hot(tasks[rows], TASKS))
    return fit.fit()


def features(kinds: Tensor) -> Any:
    values = kinds.double().numpy()
    return np.concatenate([np.log(values[:, :-1] + 1e-6), values[:, -1:]], axis=1)


def test_means_and_covariance_are_those_of_the_images() -> None:
    kinds, tasks = evidence()
    x, calibration = features(kinds), fitted()
    within = x.reshape(IMAGES, -1).copy()
    for task in range(TASKS):
        own = (tasks == task).numpy()
        mean = x[own].mean(0)
        np.testing.assert_allclose(calibration.means[task], mean, atol=1e-6)
        within[own] -= mean.reshape(-1)
    np.testing.assert_allclose(calibration.images, [134, 133, 133])
    covariance = calibration.covariance.reshape(KINDS * TASKS, -1).numpy()
    sample = within.T @ within / IMAGES
    off_diagonal = ~np.eye(KINDS * TASKS, dtype=bool)
    kept = covariance[off_diagonal] / sample[off_diagonal]
    assert np.ptp(kept) < 1e-6, "shrinking takes the same share of every covariance"
    assert 0.5 < kept[0] < 1


def test_log_probabilities_are_those_of_the_gaussians() -> None:
    calibration = fitted()
    kinds, _ = evidence(7, seed=5)
    found = (
        calibration.discriminant(KINDS).judge(kinds, torch.ones(7, TASKS, dtype=torch.bool)).log_probabilities
    )
    inverse = np.linalg.inv(calibration.covariance.reshape(KINDS * TASKS, -1).numpy())
    away = features(kinds).reshape(7, 1, -1) - calibration.means.reshape(1, TASKS, -1).numpy()
    logits = -0.5 * np.einsum("btf,fg,btg->bt", away, inverse, away)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(found, WEIGHT * logits.clip(LEAST_LOG_PROBABILITY), atol=1e-3)


def test_typicality_is_one_up_to_the_expected_distance_and_falls_with_its_square() -> None:
    calibration = fitted()
    kinds, tasks = evidence(60, seed=5)
    kinds[30:, :-1] *= 8  # far from every task
    found = calibration.discriminant(KINDS).judge(kinds, torch.ones(60, TASKS, dtype=torch.bool)).typicality
    inverse = np.linalg.inv(calibration.covariance.reshape(KINDS * TASKS, -1).numpy())
    away = features(kinds).reshape(60, 1, -1) - calibration.means.reshape(1, TASKS, -1).numpy()
    distances = np.einsum("btf,fg,btg->bt", away, inverse, away)
    np.testing.assert_allclose(found, (KINDS * TASKS / distances).clip(max=1) ** 2, atol=1e-4)
    own = found[torch.arange(60), tasks]
    assert own[:30].median() > 0.9
    assert own[30:].max() < 0.1


def test_fewer_kinds_and_fewer_tasks_are_the_marginal() -> None:
    """A calibration made without them from the start is the same, but for how much it was shrunk."""
    whole = fitted()
    some = whole.of_tasks([2, 0])
    np.testing.assert_allclose(some.means, whole.means[[2, 0]][:, :, [2, 0]])
    np.testing.assert_allclose(some.covariance[1, 0, 3, 1], whole.covariance[1, 2, 3, 0])
    kinds, _ = evidence(5, seed=3)
    every = torch.ones(5, 2, dtype=torch.bool)
    early = some.discriminant(2).judge(kinds[:, :2, [2, 0]], every).log_probabilities
    flat = whole.covariance[:2, [2, 0]][:, :, :2, [2, 0]].reshape(4, 4).numpy()
    seen = np.log(kinds[:, :2, [2, 0]].double().numpy() + 1e-6)
    away = seen.reshape(5, 1, 4) - some.means[:, :2].reshape(1, 2, 4).numpy()
    logits = -0.5 * np.einsum("btf,fg,btg->bt", away, np.linalg.inv(flat), away)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(early, WEIGHT * logits.clip(LEAST_LOG_PROBABILITY), atol=1e-3)


def test_a_task_with_hardly_any_images_is_judged_as_before() -> None:
    kinds, tasks = evidence()
    kept = (tasks != 1) | (torch.arange(IMAGES) < 3 * (LEAST_IMAGES - 1))
    fit = CalibrationFit(KINDS, TASKS)
    fit.add(kinds[kept], torch.nn.functional.one_hot(tasks[kept], TASKS))
    discriminant = fit.fit().discriminant(KINDS)
    found = discriminant.judge(kinds, torch.ones(IMAGES, TASKS, dtype=torch.bool)).log_probabilities
    assert found[:, 1].eq(0).all()
    typicality = discriminant.judge(kinds, torch.ones(IMAGES, TASKS, dtype=torch.bool)).typicality
    assert typicality[:, 1].eq(1).all()
    assert typicality[tasks == 0, 2].mean() < typicality[tasks == 0, 0].mean()
    assert found[tasks == 0, 0].mean() > found[tasks == 0, 2].mean() + 0.5
    only = torch.tensor([[False, True, False]]).expand(IMAGES, -1)
    assert discriminant.judge(kinds, only).log_probabilities.eq(0).all(), "no known candidate: no NaN"


@pytest.mark.parametrize("images", [1, 2, 30])
def test_few_images_leave_a_covariance_that_can_be_inverted(images: int) -> None:
    kinds, tasks = evidence(images)
    fit = CalibrationFit(KINDS, TASKS)
    fit.add(kinds, torch.nn.functional.one_hot(tasks, TASKS))
    found = (
        fit.fit()
        .discriminant(KINDS)
        .judge(kinds, torch.ones(images, TASKS, dtype=torch.bool))
        .log_probabilities
    )
    assert found.isfinite().all()


def test_equal_images_tell_nothing() -> None:
    """Their covariance is rounding, which may have negative eigenvalues."""
    kinds, _ = evidence(1)
    fit = CalibrationFit(KINDS, TASKS)
    for images in (64, 64, 36):
        fit.add(kinds.expand(images, -1, -1), torch.tensor([[0.3, 0.7, 0.0]]).expand(images, -1))
    calibration = fit.fit()
    covariance = calibration.covariance.reshape(KINDS * TASKS, -1)
    assert float(torch.linalg.eigvalsh(covariance).min()) > 0
    others, _ = evidence(20, seed=8)
    found = (
        calibration.discriminant(KINDS)
        .judge(others, torch.ones(20, TASKS, dtype=torch.bool))
        .log_probabilities
    )
    np.testing.assert_allclose(found[:, :2], WEIGHT * np.log(0.5), atol=0.01)


def test_shrinkage_is_the_oracle_approximation() -> None:
    """By the published formula, for p features and n images: rho of Chen et al., equation 23."""
    sample, n = torch.cov(normal(12, 40)), 40
    p = 12
    squares, trace = float((sample @ sample).trace()), float(sample.trace())
    rho = ((1 - 2 / p) * squares + trace**2) / ((n + 1 - 2 / p) * (squares - trace**2 / p))
    expected = (1 - min(1, rho)) * sample + min(1, rho) * trace / p * torch.eye(p, dtype=torch.float64)
    np.testing.assert_allclose(_shrunk(sample, n), expected)


def test_a_calibrated_router_multiplies_its_coefficients() -> None:
    """Coefficients are those without calibration times a power of the discriminant's probabilities."""
    rank, width, samples = 2, 16, 6
    blocks = normal(TASKS, rank, width).float()
    residual = SubspaceRouter(RouterConfig(layer=1), blocks)
    early = {"a": blocks, "b": blocks}  # two kinds, and the two late ones
    plain = EvidenceRouter(MODES["exact"], residual, early)
    calibration = fitted()
    calibrated = EvidenceRouter(MODES["exact"], residual, early, calibration)
    energies, features_ = evidence(samples, seed=9)[0][:, :2], normal(samples, width, seed=2).float()
    signs = normal(samples, TASKS, 2, seed=3).float()
    candidates = torch.tensor([[True, True, True], [True, False, True]] * 3)
    for kinds in (2, 4):
        before, after = plain.early(energies, candidates), calibrated.early(energies, candidates)
        if kinds == 4:
            before = plain.whole(before, features_, signs, candidates)
            after = calibrated.whole(after, features_, signs, candidates)
        discriminant = calibration.discriminant(kinds)
        power = discriminant.judge(after.kinds, candidates).log_probabilities.exp()
        expected = before.routing_coefficients * power
        expected /= expected.sum(1, keepdim=True)
        np.testing.assert_allclose(after.routing_coefficients, expected, atol=1e-5)
        assert after.routing_coefficients[~candidates].eq(0).all()


def test_an_image_is_no_surer_for_being_calibrated() -> None:
    """Whether one pass is enough is judged by the evidence alone, and not where the two disagree."""
    blocks = normal(TASKS, 2, 16).float()
    residual = SubspaceRouter(RouterConfig(layer=1), blocks)
    router = EvidenceRouter(MODES["fast"], residual, {"a": blocks, "b": blocks}, fitted())
    plain = EvidenceRouter(MODES["fast"], residual, {"a": blocks, "b": blocks})
    energies = (normal(60, 2, TASKS, seed=4) - 2).exp().float()
    every = torch.ones(60, TASKS, dtype=torch.bool)
    before, after = plain.early(energies, every), router.early(energies, every)
    same = before.scores.argmax(1) == after.scores.argmax(1)
    assert not bool(same.all())
    np.testing.assert_allclose(after.leads[same], before.leads[same], atol=1e-6)
    assert bool((after.leads[~same] <= 0).all())
