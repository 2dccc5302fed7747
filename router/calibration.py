"""What images tell of a store's evidence, fitted: means of classes and one covariance.

Standardised and summed, all evidence weighs the same and is taken for independent. With images of the tasks
one can do better, though nobody says which image is of which task: the answers of `exact` are taken for the
truth, each as far as its routing coefficient says among the tasks that were tried. Where it is said, that is
the truth, and how much all this counts is fitted too (`router.combination`). From tasks and classes follow
the mean evidence of each class of each task and the covariance that all share (the M step of one round of
expectation maximisation). For few images the covariance is shrunk by Chen, Wiesel, Eldar and Hero's rule
(OAS, arXiv:0907.4698) and a class's mean is drawn to its task's. `router.discriminant` judges images by it.

Of such a Gaussian the marginal over fewer kinds of evidence, or over fewer tasks' evidence, is a selection
of its rows and columns: one calibration serves every mode, and a server that leaves tasks out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mass_serve.router.combination import Combination
from mass_serve.router.discriminant import LEAST_SHARE, Discriminant, log_features

LEAST_VARIANCE = 1e-6  # of a feature; far above what rounding leaves of the variance of equal images
# Of a feature's own variance: added to it, so that there is always a covariance that can be inverted.
LEAST_OWN_SHARE = 1e-6
# With fewer images of it that somebody else's answers say are the task's, its mean is not worth much: it is
# judged as without a calibration.
LEAST_IMAGES = 10
# How many images of a class its task's mean counts for in the class's own. What it does is measured by
# `mass-serve calibrate` and `mass-serve eval`, on the suites named at `router.combination.WEIGHT`.
TASK_MEAN_IMAGES = 2.0
# Added to the images of each class where shares are made of them: one without images is rare, not impossible.
UNSEEN_IMAGES = 0.5


@dataclass(frozen=True)
class Calibration:
    """Where the evidence of images lies, by the C classes of all tasks side by side.

    K kinds of evidence: early energies, explained share, cosine.
    """

    means: Tensor  # [C, K, T] float64
    covariance: Tensor  # [K, T, K, T] float64
    images: Tensor  # [C] float64: how many images of each class there were
    owner: Tensor  # [T, C] float64: 1 where the class is the task's
    # How much it counts beside early evidence and beside the whole; None where nobody said which task an
    # image is of.
    early: Combination | None = None
    whole: Combination | None = None

    @property
    def is_usable(self) -> bool:
        """Tells whether a fit may have given the numbers: all finite, a covariance, each class one task's."""
        features = self.means.shape[1] * self.means.shape[2]
        covariance = self.covariance.reshape(features, features)
        weights = [] if self.weights is None else [self.weights]
        if not all(t.isfinite().all() for t in (self.means, covariance, self.images, *weights)):
            return False
        owned = (self.owner == 1).sum(0).eq(1) & (self.owner == 0).sum(0).eq(len(self.owner) - 1)
        counted = bool(owned.all() & (self.images >= 0).all() & (self.owner.sum(1) >= 1).all())
        symmetric = torch.allclose(covariance, covariance.T)
        return counted and symmetric and int(torch.linalg.cholesky_ex(covariance).info) == 0

    @property
    def weights(self) -> Tensor | None:
        """How much it counts, as numbers [2, 1 + K + T] float64; None where no image's task was known."""
        if self.early is None or self.whole is None:
            return None
        kinds = self.means.shape[1]
        return torch.stack([self.early.numbers(kinds), self.whole.numbers(kinds)])

    @property
    def task_images(self) -> Tensor:
        """The number of images of each task, [T]."""
        return self.owner @ self.images

    def of_tasks(self, tasks: Sequence[int]) -> Calibration:
        """Returns the calibration of these tasks alone, in that order."""
        at = list(tasks)
        kept = self.owner[at].sum(0) > 0
        return Calibration(
            self.means[kept][:, :, at],
            self.covariance[:, at][:, :, :, at],
            self.images[kept],
            self.owner[at][:, kept],
            None if self.early is None else self.early.of_tasks(at),
            None if self.whole is None else self.whole.of_tasks(at),
        )

    def counting(self, early: Combination, whole: Combination) -> Calibration:
        """Returns it as that of images whose tasks are known: it counts so much, and every image does."""
        return replace(self, early=early, whole=whole)

    def discriminant(self, kinds: int) -> Discriminant:
        """Makes the discriminant that judges by the first `kinds` kinds of evidence."""
        every_kind, tasks = self.means.shape[1:]
        combination = self.whole if kinds == every_kind else self.early
        means = self.means[:, :kinds].reshape(len(self.means), -1)
        covariance = self.covariance[:kinds, :, :kinds].reshape(kinds * tasks, kinds * tasks)
        least = LEAST_IMAGES if combination is None else 1
        known, of_class = self.task_images >= least, self.owner.argmax(0)
        # Only known tasks count in the centre: the means of the others may be far off.
        images = self.images * known[of_class]
        centre = images @ means / images.sum().clamp_min(1)
        counts = self.images + UNSEEN_IMAGES
        log_shares = (counts / (self.owner @ counts)[of_class]).log()
        factor = torch.linalg.cholesky(covariance)
        whitening = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).double(), upper=False)
        weight = (means - centre) @ whitening.T @ whitening  # [C, K T]
        bias = -0.5 * (weight * (means - centre)).sum(1)
        return Discriminant(
            weight.float(),
            bias.float(),
            log_shares.float(),
            centre.float(),
            whitening.float().contiguous(),
            self.owner.float(),
            of_class,
            known,
            with_cosines=kinds == every_kind,
            combination=(combination or Combination.unlabelled(kinds, tasks)).of_kinds(kinds),
        )


class CalibrationFit:
    """Collects what a calibration is made of. Its memory does not grow with the images."""

    def __init__(self, kinds: int, classes: Sequence[int]) -> None:
        """`classes` holds the number of classes of each task."""
        self._classes, self._shape = classes, (kinds, len(classes))
        features = kinds * len(classes)
        self._images = torch.zeros(sum(classes), dtype=torch.float64)
        self._sums = torch.zeros(sum(classes), features, dtype=torch.float64)
        self._products = torch.zeros(features, features, dtype=torch.float64)

    def add(self, kinds: Tensor, tasks: Tensor, labels: Tensor, probabilities: Tensor) -> None:
        """Counts images by their evidence [B, K, T], task [B] and class of that task [B].

        Each counts for as much of an image as its probability [B] of being of that task.
        """
        features, counts = log_features(kinds.double(), with_cosines=True).flatten(1), probabilities.double()
        first = torch.tensor([0, *self._classes]).cumsum(0)
        self._images.index_add_(0, first[tasks] + labels, counts)
        self._sums.index_add_(0, first[tasks] + labels, features * counts.unsqueeze(1))
        self._products += (features * counts.unsqueeze(1)).T @ features

    def __add__(self, other: CalibrationFit) -> CalibrationFit:
        """Returns the fit to the images of both."""
        both = CalibrationFit(self._shape[0], self._classes)
        both._images = self._images + other._images
        both._sums = self._sums + other._sums
        both._products = self._products + other._products
        return both

    def fit(self) -> Calibration:
        """Returns the calibration by all images so far."""
        kinds, tasks = self._shape
        total = float(self._images.sum())
        of_class = torch.repeat_interleave(torch.tensor(self._classes))
        owner = torch.nn.functional.one_hot(of_class, tasks).T.double()
        task_means = owner @ self._sums / (owner @ self._images).clamp_min(LEAST_SHARE).unsqueeze(1)
        counts = (self._images + TASK_MEAN_IMAGES).unsqueeze(1)
        means = (self._sums + TASK_MEAN_IMAGES * task_means[of_class]) / counts
        crossed = self._sums.T @ means
        within = self._products - crossed - crossed.T + (means * self._images.unsqueeze(1)).T @ means
        within /= total
        overall = self._sums.sum(0) / total
        scale = (self._products.diagonal() / total - overall.square()).clamp_min(LEAST_VARIANCE).sqrt()
        own = LEAST_OWN_SHARE * torch.eye(len(within), dtype=within.dtype)
        shrunk = _shrunk(within / scale / scale.unsqueeze(1) + own, total) * scale * scale.unsqueeze(1)
        return Calibration(
            means.view(-1, kinds, tasks),
            shrunk.view(kinds, tasks, kinds, tasks),
            self._images.clone(),
            owner.contiguous(),
        )


def _shrunk(covariance: Tensor, images: float) -> Tensor:
    """Shrinks a sample covariance [F, F] towards a multiple of the identity by OAS (equation 23)."""
    features = len(covariance)
    trace, squares = covariance.trace(), covariance.square().sum()
    above = (1 - 2 / features) * squares + trace.square()
    below = (images + 1 - 2 / features) * (squares - trace.square() / features)
    share = float((above / below).clamp(0.0, 1.0))
    return (1 - share) * covariance + share * trace / features * torch.eye(features, dtype=covariance.dtype)
