"""A head of class means: a linear discriminant whose covariance is shrunk (Friedman, 1989).

With m_c the mean embedding of class c and S the covariance of embeddings about the means of their classes,

    S_a = (1 - a) S + a (tr S / P) I
    logits_c = k (m_c^T S_a^-1 x - m_c^T S_a^-1 m_c / 2)

The shrinkage a = 1 is the nearest mean. All classes are taken for equally likely. The scale k has the
probabilities as often right as they say, by the likelihood of inputs that the head was not fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.model_store.format.heads import BIAS, CLASS_MEANS, WEIGHT, HeadTensors, created_head

SHRINKAGES = (0.3, 0.6, 0.8, 0.95, 1.0)
# k, of which the likeliest is taken.
SCALES: tuple[float, ...] = tuple(2.0 ** (power / 2) for power in range(-20, 9))

JUDGED_ROWS = 512  # inputs whose logits are in memory at a time: of 10,000 classes 40 MB


@dataclass(frozen=True)
class ClassMeans:
    """What embeddings of labelled inputs tell, in float64."""

    means: Tensor  # [C, P]
    covariance: Tensor  # [P, P], about the means

    @classmethod
    def of(cls, embeddings: Tensor, targets: Tensor, classes: int) -> ClassMeans:
        """Measures embeddings [n, P] whose classes `targets` [n] int64 numbers; each has some."""
        z = embeddings.double()
        counts = targets.bincount(minlength=classes).to(z)
        means = z.new_zeros(classes, z.shape[1]).index_add_(0, targets, z) / counts.unsqueeze(1)
        about = z - means[targets]
        return cls(means, about.T @ about / len(z))

    def head(self, shrinkage: float) -> tuple[Tensor, Tensor]:
        """The weight [C, P] and bias [C] of the discriminant with k = 1, in float64."""
        width = len(self.covariance)
        # Where no class varies, the nearest mean is all that is left.
        spread = self.covariance.trace() / width or torch.ones((), dtype=torch.float64)
        eye = torch.eye(width, dtype=torch.float64)
        shrunk = (1 - shrinkage) * self.covariance + shrinkage * spread * eye
        weight = torch.linalg.solve(shrunk, self.means.T).T
        return weight, -(weight * self.means).sum(1) / 2

    def tensors(self, shrinkage: float, scale: float, first_pass: ClassMeans) -> HeadTensors:
        """The head as a store keeps it. Raises ValueError where it is not finite.

        The router compares what it has of a first pass, so that the means beside the head are those by the
        weights of the `first_pass`.
        """
        weight, bias = self.head(shrinkage)
        means = F.normalize(first_pass.means, dim=1)
        tensors = {WEIGHT: scale * weight, BIAS: scale * bias, CLASS_MEANS: means}
        return created_head({name: tensor.float() for name, tensor in tensors.items()})


@dataclass(frozen=True)
class Judged:
    """How heads of one shrinkage did on inputs that they were not fitted to."""

    right: Tensor  # [n] bool
    losses: Tensor  # [len(SCALES)]: the sums of -log p of the right classes, by the scale

    @classmethod
    def of(cls, head: tuple[Tensor, Tensor], embeddings: Tensor, targets: Tensor) -> Judged:
        """Asks a head about embeddings [n, P] of the classes `targets` [n]."""
        weight, bias = head
        right, losses = [], torch.zeros(len(SCALES), dtype=torch.float64)
        for x, own in zip(*(torch.split(one, JUDGED_ROWS) for one in (embeddings, targets)), strict=True):
            logits = x.double() @ weight.T + bias
            right.append(logits.argmax(1) == own)
            losses += torch.stack([F.cross_entropy(k * logits, own, reduction="sum") for k in SCALES])
        return cls(torch.cat(right), losses)

    def with_others(self, other: Judged) -> Judged:
        """The two together."""
        return Judged(torch.cat([self.right, other.right]), self.losses + other.losses)

    @property
    def accuracy(self) -> float:
        """The share of inputs that were right."""
        return self.right.double().mean().item()

    @property
    def scale(self) -> float:
        """The scale that has the right classes likeliest."""
        best: float = SCALES[int(self.losses.argmin())]
        return best
