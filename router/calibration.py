"""What unlabelled images tell of a store's evidence: a Gaussian discriminant with one covariance.

Standardised and summed, all evidence weighs the same and is taken for independent. With images of the tasks
one can do better, though nobody says which image is of which task: the routing coefficients of `exact` are
taken for the probabilities of the tasks, and from them follow each task's mean evidence and the covariance
that all tasks share (the M step of one round of expectation maximisation). The covariance is shrunk by
Chen, Wiesel, Eldar and Hero's rule (OAS, arXiv:0907.4698), for few images.

How far an image's evidence is from that of the answer's task also says how typical an image it is: what no
task covers lies far from all of them.

Of such a Gaussian the marginal over fewer kinds of evidence, or over fewer tasks' evidence, is a selection
of its rows and columns: one calibration serves every mode, and a server that leaves tasks out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import kernels

# The power of the discriminant's probabilities. It is fitted on answers of the very evidence that it is
# added to: from 0.5 on, calibration on few images does more harm than good on some suite of the README.
WEIGHT = 0.25
# Beyond this a log probability says no more than "no".
LEAST_LOG_PROBABILITY = -10.0
# The power of the share by which evidence is typical, in familiarity. With 1, images that no task covers are
# told worse among twenty tasks; with 3, on the demo.
TYPICALITY_POWER = 2
LEAST_SHARE = 1e-6
LEAST_VARIANCE = 1e-6  # of a feature; far above what rounding leaves of the variance of equal images
# Of a feature's own variance: added to it, so that there is always a covariance that can be inverted.
LEAST_OWN_SHARE = 1e-6
# With fewer images of it, a task's mean is not worth much: it is then judged as without a calibration.
LEAST_IMAGES = 10


def _features(kinds: Tensor, with_cosines: bool) -> Tensor:
    """Evidence [B, K, T] with shares on a logarithmic scale; the last of all kinds is a cosine already."""
    if not with_cosines:
        return (kinds + LEAST_SHARE).log()
    return torch.cat([(kinds[:, :-1] + LEAST_SHARE).log(), kinds[:, -1:]], dim=1)


@dataclass(frozen=True)
class Judgement:
    """What a calibration says of B images and T tasks."""

    # [B, T] float32: `WEIGHT` times the log probabilities. 0 for unknown tasks and for those that are no
    # candidates: nothing speaks for or against them beside the likeliest of the others.
    log_probabilities: Tensor
    # [B, T] float32, 0 to 1: 1 where the image is as near to the task's mean as its own images are, less the
    # further away it is, and 1 for unknown tasks.
    typicality: Tensor


@dataclass(frozen=True)
class Discriminant:
    """Tasks that are known well enough, judged by the F = K T features of an image's evidence."""

    weight: Tensor  # [T, F] float32: log probabilities are linear in the features
    bias: Tensor  # [T] float32
    centre: Tensor  # [F] float32: taken from the features first, so that little cancels
    whitening: Tensor  # [F, F] float32: makes the covariance the identity
    known: Tensor  # [T] bool
    with_cosines: bool

    def judge(self, kinds: Tensor, candidates: Tensor) -> Judgement:
        """Of evidence [B, K, T] among the candidates [B, T] bool."""
        centred = _features(kinds, self.with_cosines).flatten(1) - self.centre
        logits = kernels.linear(centred, self.weight, self.bias)
        return Judgement(self._log_probabilities(logits, candidates), self._typicality(centred, logits))

    def _log_probabilities(self, logits: Tensor, candidates: Tensor) -> Tensor:
        judged = candidates & self.known
        log_probabilities = logits.masked_fill(~judged, -torch.inf).log_softmax(1)
        return torch.where(judged, WEIGHT * log_probabilities.clamp_min(LEAST_LOG_PROBABILITY), 0.0)

    def _typicality(self, centred: Tensor, logits: Tensor) -> Tensor:
        # |W x - W m|^2 is |W x|^2 less twice the logit, which is x' C^-1 m - m' C^-1 m / 2.
        white = kernels.linear(centred, self.whitening)
        distances = white.square().sum(1, keepdim=True) - 2 * logits
        typical = (len(self.centre) / distances.clamp_min(1.0)).clamp_max(1.0) ** TYPICALITY_POWER
        return torch.where(self.known, typical, 1.0)


@dataclass(frozen=True)
class Calibration:
    """Where the evidence of each task's images lies. K kinds: early energies, explained share, cosine."""

    means: Tensor  # [T, K, T] float64: of the images of the first T, the evidence for the last T
    covariance: Tensor  # [K, T, K, T] float64
    images: Tensor  # [T] float64: how many images of each task there were

    def of_tasks(self, tasks: Sequence[int]) -> Calibration:
        """That of some of the tasks, in that order."""
        at = list(tasks)
        return Calibration(self.means[at][:, :, at], self.covariance[:, at][:, :, :, at], self.images[at])

    def discriminant(self, kinds: int) -> Discriminant:
        """The one that judges by the first `kinds` kinds of evidence."""
        tasks = len(self.means)
        means = self.means[:, :kinds].reshape(tasks, -1)
        covariance = self.covariance[:kinds, :, :kinds].reshape(kinds * tasks, kinds * tasks)
        known = self.images >= LEAST_IMAGES
        # Of the known tasks: the others' means may be far off.
        centre = (means * known.unsqueeze(1)).sum(0) / known.sum().clamp_min(1)
        factor = torch.linalg.cholesky(covariance)
        whitening = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).double(), upper=False)
        weight = (means - centre) @ whitening.T @ whitening  # [T, K T]
        bias = -0.5 * (weight * (means - centre)).sum(1)
        return Discriminant(
            weight.float(),
            bias.float(),
            centre.float(),
            whitening.float(),
            known,
            with_cosines=kinds == self.means.shape[1],
        )


class CalibrationFit:
    """Collects what a calibration is made of. Its memory does not grow with the images."""

    def __init__(self, kinds: int, tasks: int) -> None:
        self.images = torch.zeros(tasks, dtype=torch.float64)  # of each task, by its probabilities
        self._shape = (kinds, tasks)
        self._sums = torch.zeros(tasks, kinds * tasks, dtype=torch.float64)
        self._products = torch.zeros(kinds * tasks, kinds * tasks, dtype=torch.float64)

    def add(self, kinds: Tensor, probabilities: Tensor) -> None:
        """Counts the evidence [B, K, T] of images that are of each task with `probabilities` [B, T]."""
        features = _features(kinds.double(), with_cosines=True).flatten(1)
        self.images += probabilities.double().sum(0)
        self._sums += probabilities.double().T @ features
        self._products += features.T @ features

    def __add__(self, other: CalibrationFit) -> CalibrationFit:
        """That of the images of both."""
        both = CalibrationFit(*self._shape)
        both.images = self.images + other.images
        both._sums = self._sums + other._sums
        both._products = self._products + other._products
        return both

    def fit(self) -> Calibration:
        """The calibration by all images so far."""
        kinds, tasks = self._shape
        total = float(self.images.sum())
        means = self._sums / self.images.clamp_min(LEAST_SHARE).unsqueeze(1)
        within = (self._products - self._sums.T @ means) / total
        overall = self._sums.sum(0) / total
        scale = (self._products.diagonal() / total - overall.square()).clamp_min(LEAST_VARIANCE).sqrt()
        own = LEAST_OWN_SHARE * torch.eye(len(within), dtype=within.dtype)
        shrunk = _shrunk(within / scale / scale.unsqueeze(1) + own, total) * scale * scale.unsqueeze(1)
        return Calibration(
            means.view(tasks, kinds, tasks), shrunk.view(kinds, tasks, kinds, tasks), self.images.clone()
        )


def _shrunk(covariance: Tensor, images: float) -> Tensor:
    """Oracle approximating shrinkage of a sample covariance [F, F] towards a multiple of the identity."""
    features = len(covariance)
    trace, squares = covariance.trace(), covariance.square().sum()
    above = (1 - 2 / features) * squares + trace.square()
    below = (images + 1 - 2 / features) * (squares - trace.square() / features)
    share = float((above / below).clamp(0.0, 1.0))
    return (1 - share) * covariance + share * trace / features * torch.eye(features, dtype=covariance.dtype)
