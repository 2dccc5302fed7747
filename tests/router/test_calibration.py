"""Calibration: the discriminant against scikit-free formulas, its marginals, and what it may not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mass_serve.router import (
    LEAST_IMAGES,
    Calibration,
    CalibrationFit,
    EvidenceRouter,
    LinearSubspaces,
    TaskSubspaces,
)
from mass_serve.router.calibration import TASK_MEAN_IMAGES, _shrunk
from mass_serve.router.combination import LEAST_LOG_PROBABILITY, WEIGHT

KINDS, TASKS, IMAGES = 4, 3, 400
CLASSES = [2, 1, 3]
OF_TASK = [0, 0, 1, 2, 2, 2]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def evidence(images: int = IMAGES, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Evidence [n, K, T], and the task and class of each image.

    A task's own images have more of it, and each of its classes some more of another task's.
    """
    tasks = torch.arange(images) % TASKS
    labels = torch.arange(images) // TASKS % torch.tensor(CLASSES)[tasks]
    noise = 0.3 * normal(images, KINDS, TASKS, seed=seed)
    own = torch.nn.functional.one_hot(tasks, TASKS).unsqueeze(1)
    others = torch.nn.functional.one_hot((tasks + labels) % TASKS, TASKS).unsqueeze(1)
    shares = (noise[:, :-1] + 0.5 * own + 0.4 * others - 2).exp()
    cosines = 0.2 + 0.1 * own + 0.1 * noise[:, -1:]
    return torch.cat([shares, cosines], dim=1).float(), tasks, labels


def fit_of(
    kinds: Tensor, tasks: Tensor, labels: Tensor, probabilities: Tensor | None = None
) -> CalibrationFit:
    fit = CalibrationFit(KINDS, CLASSES)
    counts = torch.ones(len(kinds)) if probabilities is None else probabilities
    for part in range(0, len(kinds), 64):  # in parts, as it is used
        rows = slice(part, part + 64)
        fit.add(kinds[rows], tasks[rows], labels[rows], counts[rows])
    return fit


def fitted(images: int = IMAGES) -> Calibration:
    return fit_of(*evidence(images)).fit()


def mixture(calibration: Calibration, kinds: Tensor) -> tuple[Any, Any]:
    """Log probabilities [n, T] of the mixture of Gaussians, and squared distances to the classes [n, C]."""
    means = calibration.means.reshape(len(calibration.means), -1).numpy()
    features_ = len(means[0])
    inverse = np.linalg.inv(calibration.covariance.reshape(features_, -1).numpy())
    away = features(kinds).reshape(len(kinds), 1, -1) - means
    distances = np.einsum("bcf,fg,bcg->bc", away, inverse, away)
    images, of_task = calibration.images.numpy() + 0.5, calibration.owner.argmax(0).numpy()
    tasks = calibration.means.shape[2]
    density = np.stack(
        [
            (np.exp(-0.5 * distances) * images / images[of_task == task].sum())[:, of_task == task].sum(1)
            for task in range(tasks)
        ],
        axis=1,
    )
    return np.log(density / density.sum(1, keepdims=True)), distances


def features(kinds: Tensor) -> Any:
    values = kinds.double().numpy()
    return np.concatenate([np.log(values[:, :-1] + 1e-6), values[:, -1:]], axis=1)


def test_means_and_covariance_are_those_of_the_images() -> None:
    kinds, tasks, labels = evidence()
    x, calibration = features(kinds).reshape(IMAGES, -1), fitted()
    within = x.copy()
    for column, task in enumerate(OF_TASK):
        label = column - OF_TASK.index(task)
        own = ((tasks == task) & (labels == label)).numpy()
        count, of_task = own.sum(), x[(tasks == task).numpy()].mean(0)
        mean = (x[own].sum(0) + TASK_MEAN_IMAGES * of_task) / (count + TASK_MEAN_IMAGES)
        np.testing.assert_allclose(calibration.means[column].reshape(-1), mean, atol=1e-6)
        assert calibration.images[column] == count
        within[own] -= mean
    assert calibration.owner.argmax(0).tolist() == OF_TASK
    assert calibration.owner.sum(0).eq(1).all()
    np.testing.assert_allclose(calibration.task_images, [134, 133, 133])
    covariance = calibration.covariance.reshape(KINDS * TASKS, -1).numpy()
    sample = within.T @ within / IMAGES
    off_diagonal = ~np.eye(KINDS * TASKS, dtype=bool)
    kept = covariance[off_diagonal] / sample[off_diagonal]
    assert np.ptp(kept) < 1e-6, "shrinking takes the same share of every covariance"
    assert 0.1 < kept[0] < 1


def test_an_image_counts_as_far_as_its_answer_is_probable() -> None:
    kinds, tasks, labels = evidence(120)
    twice = fit_of(*(torch.cat([part, part[:60]]) for part in (kinds, tasks, labels))).fit()
    weighted = fit_of(kinds, tasks, labels, (torch.arange(120) < 60) + 1.0).fit()
    for name in ("means", "covariance", "images"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(twice, name), rtol=1e-9, atol=1e-12)


def test_two_fits_together_are_that_of_all_images() -> None:
    whole = evidence()
    halves = [fit_of(*(part[half::2] for part in whole)) for half in (0, 1)]
    together, at_once = (halves[0] + halves[1]).fit(), fitted()
    for name in ("means", "covariance", "images"):
        np.testing.assert_allclose(getattr(together, name), getattr(at_once, name), rtol=1e-9, atol=1e-12)


def test_log_probabilities_are_those_of_the_mixture() -> None:
    calibration = fitted()
    kinds = evidence(7, seed=5)[0]
    found = calibration.discriminant(KINDS).judge(kinds, torch.ones(7, TASKS, dtype=torch.bool))
    expected, _ = mixture(calibration, kinds)
    np.testing.assert_allclose(found.added, WEIGHT * expected.clip(LEAST_LOG_PROBABILITY), atol=1e-3)


def test_typicality_is_one_up_to_the_expected_distance_and_falls_with_its_square() -> None:
    calibration = fitted()
    kinds, tasks, _ = evidence(60, seed=5)
    kinds[30:, :-1] *= 8  # far from every task
    found = calibration.discriminant(KINDS).judge(kinds, torch.ones(60, TASKS, dtype=torch.bool)).typicality
    _, distances = mixture(calibration, kinds)
    nearest = np.stack([distances[:, np.array(OF_TASK) == task].min(1) for task in range(TASKS)], axis=1)
    np.testing.assert_allclose(found, (KINDS * TASKS / nearest).clip(max=1) ** 2, atol=1e-4)
    own = found[torch.arange(60), tasks]
    assert own[:30].median() > 0.9
    assert own[30:].max() < 0.1


def test_fewer_kinds_and_fewer_tasks_are_the_marginal() -> None:
    """A calibration made without them from the start is the same, but for how much it was shrunk."""
    whole = fitted()
    some = whole.of_tasks([2, 0])
    assert some.owner.argmax(0).tolist() == [1, 1, 0, 0, 0]
    np.testing.assert_allclose(some.means, whole.means[[0, 1, 3, 4, 5]][:, :, [2, 0]])
    np.testing.assert_allclose(some.images, whole.images[[0, 1, 3, 4, 5]])
    np.testing.assert_allclose(some.covariance[1, 0, 3, 1], whole.covariance[1, 2, 3, 0])
    kinds = evidence(5, seed=3)[0][:, :2, [2, 0]]
    found = some.discriminant(2).judge(kinds, torch.ones(5, 2, dtype=torch.bool))
    # Of early evidence all kinds are shares, so `features` is given a last kind that changes nothing.
    early = Calibration(
        torch.cat([some.means[:, :2], torch.zeros(5, 1, 2)], dim=1),
        torch.zeros(3, 2, 3, 2),
        some.images,
        some.owner,
    )
    early.covariance[:2, :, :2] = some.covariance[:2, :, :2]
    early.covariance[2, :, 2] = torch.eye(2)
    expected, _ = mixture(early, torch.cat([kinds, torch.zeros(5, 1, 2)], dim=1))
    np.testing.assert_allclose(found.added, WEIGHT * expected.clip(LEAST_LOG_PROBABILITY), atol=1e-3)


def test_a_task_with_hardly_any_images_is_judged_as_before() -> None:
    kinds, tasks, labels = evidence()
    kept = (tasks != 1) | (torch.arange(IMAGES) < 3 * (LEAST_IMAGES - 1))
    discriminant = fit_of(kinds[kept], tasks[kept], labels[kept]).fit().discriminant(KINDS)
    judged = discriminant.judge(kinds, torch.ones(IMAGES, TASKS, dtype=torch.bool))
    found = judged.added
    assert found[:, 1].eq(0).all()
    assert judged.typicality[:, 1].eq(1).all()
    assert judged.typicality[tasks == 0, 2].mean() < judged.typicality[tasks == 0, 0].mean()
    assert found[tasks == 0, 0].mean() > found[tasks == 0, 2].mean() + 0.5
    only = torch.tensor([[False, True, False]]).expand(IMAGES, -1)
    assert discriminant.judge(kinds, only).added.eq(0).all(), "no known candidate: no NaN"


@pytest.mark.parametrize("images", [1, 2, 30])
def test_few_images_leave_a_covariance_that_can_be_inverted(images: int) -> None:
    kinds, tasks, labels = evidence(images)
    discriminant = fit_of(kinds, tasks, labels).fit().discriminant(KINDS)
    judged = discriminant.judge(kinds, torch.ones(images, TASKS, dtype=torch.bool))
    assert judged.added.isfinite().all()
    assert judged.typicality.isfinite().all()


def test_equal_images_tell_nothing() -> None:
    """Their covariance is rounding, which may have negative eigenvalues."""
    kinds = evidence(1)[0].expand(164, -1, -1)
    tasks = torch.arange(164) % 2
    calibration = fit_of(kinds, tasks, torch.zeros_like(tasks)).fit()
    covariance = calibration.covariance.reshape(KINDS * TASKS, -1)
    assert float(torch.linalg.eigvalsh(covariance).min()) > 0
    judged = calibration.discriminant(KINDS).judge(
        evidence(20, seed=8)[0], torch.ones(20, TASKS, dtype=torch.bool)
    )
    np.testing.assert_allclose(judged.added[:, :2], WEIGHT * np.log(0.5), atol=0.01)


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
    subspaces = TaskSubspaces(blocks)
    linear = LinearSubspaces.of(list(blocks), list(torch.ones(TASKS, rank)), profiled=False)
    linears = {"a": linear}, {"b": linear}, [False] * TASKS  # one early kind, and the three late ones
    plain = EvidenceRouter(subspaces, *linears)
    calibration = fitted()
    calibrated = EvidenceRouter(subspaces, *linears, calibration)
    shares, features_ = evidence(samples, seed=9)[0], normal(samples, width, seed=2).float()
    energies, late = shares[:, :1], shares[:, 1:2]
    cosines = normal(samples, TASKS, seed=3).float()
    candidates = torch.tensor([[True, True, True], [True, False, True]] * 3)
    for kinds in (1, 4):
        before, after = plain.early(energies, candidates), calibrated.early(energies, candidates)
        if kinds == 4:
            before = plain.whole(before.energies, late, features_, cosines, candidates)
            after = calibrated.whole(after.energies, late, features_, cosines, candidates)
        discriminant = calibration.discriminant(kinds)
        power = discriminant.judge(after.kinds, candidates).added.exp()
        expected = before.routing_coefficients * power
        expected /= expected.sum(1, keepdim=True)
        np.testing.assert_allclose(after.routing_coefficients, expected, atol=1e-5)
        assert after.routing_coefficients[~candidates].eq(0).all()
        np.testing.assert_allclose(
            after.typicality, discriminant.judge(after.kinds, candidates).typicality, atol=1e-6
        )
        assert before.typicality.eq(1).all()
        of_samples = after.samples()
        for name in ("scores", "likeness", "typicality", "kinds", "leads"):
            np.testing.assert_array_equal(getattr(of_samples[4], name), getattr(after, name)[4])
        likeness = of_samples[3].likeness_to([0, 2])
        expected = after.likeness[3] * after.typicality[3]
        assert likeness == pytest.approx({0: float(expected[0]), 2: float(expected[2])})


def test_an_image_is_no_surer_for_being_calibrated() -> None:
    """Whether one pass is enough is judged by the evidence alone, and not where the two disagree."""
    blocks = normal(TASKS, 2, 16).float()
    subspaces = TaskSubspaces(blocks)
    linear = LinearSubspaces.of(list(blocks), list(torch.ones(TASKS, 2)), profiled=False)
    nothing: dict[str, LinearSubspaces] = {}
    linears = {"a": linear}, nothing, [False] * TASKS
    router = EvidenceRouter(subspaces, *linears, fitted())
    plain = EvidenceRouter(subspaces, *linears)
    energies = (normal(60, 1, TASKS, seed=4) - 2).exp().float()
    every = torch.ones(60, TASKS, dtype=torch.bool)
    before, after = plain.early(energies, every), router.early(energies, every)
    same = before.scores.argmax(1) == after.scores.argmax(1)
    assert not bool(same.all())
    np.testing.assert_allclose(after.leads[same], before.leads[same], atol=1e-6)
    assert bool((after.leads[~same] <= 0).all())
