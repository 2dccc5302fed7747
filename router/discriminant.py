"""How a calibrated store judges images: a Gaussian discriminant with one covariance for all classes.

A task is the mixture of its classes, because tasks differ more in single classes than in the mean of all. The
log likelihoods of the classes are linear in an image's evidence, so that judging costs one small product.

How far an image's evidence is from that of the answer's task also says how typical an image it is: what no
task covers lies far from all of them. `router.calibration` fits what is read here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve import kernels
from mass_serve.router.combination import LEAST_LOG_PROBABILITY, Combination

# The power of the share by which evidence is typical, in familiarity. With 1, images that no task covers are
# told worse among twenty tasks; with 3, on the demo. Chosen by `mass-serve eval suite/store suite/evaluation
# --ood suite/ood`, on the demo and on the suites named at `router.combination.WEIGHT`.
TYPICALITY_POWER = 2
LEAST_SHARE = 1e-6  # is added to shares before their logarithm is taken


def log_features(kinds: Tensor, with_cosines: bool) -> Tensor:
    """The evidence [B, K, T] with shares on a logarithmic scale, `log(share + LEAST_SHARE)`.

    `with_cosines` says that the last kind is a cosine, which stays as it is.
    """
    if not with_cosines:
        return (kinds + LEAST_SHARE).log()
    return torch.cat([(kinds[:, :-1] + LEAST_SHARE).log(), kinds[:, -1:]], dim=1)


@dataclass(frozen=True)
class Judgement:
    """Holds what a calibration says of B images and T tasks."""

    # [B, T] float32: those of the candidates that are known, at least -10; 0 of the others.
    log_probabilities: Tensor
    # [B, T] float32: what is added to the log odds (`router.combination`). Of unknown tasks no log
    # probability is in it: nothing speaks for or against them beside the likeliest of the others.
    added: Tensor
    # [B, T] float32, 0 to 1: 1 where the image is as near to a class of the task as images of that class are,
    # less the further away it is, and 1 for unknown tasks.
    typicality: Tensor


@dataclass(frozen=True)
class Discriminant:
    """Tasks that are known well enough, judged by the F = K T features of an image's evidence."""

    weight: Tensor  # [C, F] float32: the log likelihoods of C classes are linear in the features
    bias: Tensor  # [C] float32
    log_shares: Tensor  # [C] float32: of each class among the images of its task
    centre: Tensor  # [F] float32: taken from the features first, so that little cancels
    whitening: Tensor  # [F, F] float32: makes the covariance the identity
    owner: Tensor  # [T, C] float32: 1 where the class is the task's
    of_class: Tensor  # [C] int64: the same, as the number of the task
    known: Tensor  # [T] bool
    with_cosines: bool
    combination: Combination

    def judge(self, kinds: Tensor, candidates: Tensor) -> Judgement:
        """Judges images by their evidence [B, K, T], among the tasks of the mask `candidates` [B, T]."""
        centred = log_features(kinds, self.with_cosines).flatten(1) - self.centre
        likelihoods = kernels.linear(centred, self.weight, self.bias)
        log_probabilities = self._of_tasks(likelihoods, candidates & self.known)
        return Judgement(
            log_probabilities,
            self.combination.added(log_probabilities, kinds, candidates),
            self._typicality(centred, likelihoods),
        )

    def _of_tasks(self, likelihoods: Tensor, judged: Tensor) -> Tensor:
        classes = judged[:, self.of_class]
        of_classes = (likelihoods + self.log_shares).masked_fill(~classes, -torch.inf).softmax(1)
        log_probabilities = kernels.linear(of_classes, self.owner).log().clamp_min(LEAST_LOG_PROBABILITY)
        # A row without any known candidate is NaN after the softmax; it is 0 in the answer.
        return torch.where(judged, log_probabilities, 0.0)

    def _typicality(self, centred: Tensor, likelihoods: Tensor) -> Tensor:
        # |W x - W m|^2 is |W x|^2 less twice the likelihood, which is x' C^-1 m - m' C^-1 m / 2.
        white = kernels.linear(centred, self.whitening)
        distances = white.square().sum(1, keepdim=True) - 2 * likelihoods
        none = torch.full((len(centred), len(self.known)), torch.inf)
        nearest = none.scatter_reduce(1, self.of_class.expand_as(distances), distances, "amin")
        # F is the expected squared distance of an image to the mean of its own class.
        typical = (len(self.centre) / nearest.clamp_min(1.0)).clamp_max(1.0) ** TYPICALITY_POWER
        return torch.where(self.known, typical, 1.0)
