"""Classification heads: from an embedding to the logits of one task's classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve import kernels


@dataclass(frozen=True)
class ClassificationHead:
    """A cosine head (`logit_scale` set) or a linear one (`bias` set), in float32.

    cosine: `logits = logit_scale * normalise(z) normalise(W)^T`; linear: `logits = z W^T + b`.
    """

    weight: Tensor  # [C, P]; rows of unit length in a cosine head
    bias: Tensor | None = None  # [C]
    logit_scale: float | None = None  # the multiplier itself, not its logarithm

    def __post_init__(self) -> None:
        if (self.bias is None) == (self.logit_scale is None):
            raise ValueError("a head is either cosine (logit_scale) or linear (bias)")
        if self.logit_scale is not None:
            object.__setattr__(self, "weight", F.normalize(self.weight.float(), dim=1))

    def to(self, device: torch.device) -> ClassificationHead:
        """The same head on another device."""
        bias = None if self.bias is None else self.bias.to(device)
        return ClassificationHead(self.weight.to(device), bias, self.logit_scale)

    @property
    def directions(self) -> Tensor:
        """The class vectors, [C, P]: the rows of the weight at unit length, in float32."""
        return self.weight if self.bias is None else F.normalize(self.weight.float(), dim=1)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """The cosines [n, C] between embeddings [n, P] and the class vectors, in float32.

        Unlike logits they can be compared between heads of any kind and scale.
        """
        return kernels.linear(F.normalize(embeddings.float(), dim=1), self.directions)

    def logits(self, embeddings: Tensor) -> Tensor:
        """The logits [n, C] of embeddings [n, P], in float32."""
        z = embeddings.float()
        if self.logit_scale is None:
            return kernels.linear(z, self.weight, self.bias)
        return kernels.linear(F.normalize(z, dim=1), self.weight) * self.logit_scale
