"""Classification heads: from an embedding to the logits of one task's classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve import kernels
from mass_serve.backbone.labelling import MULTI_CLASS, Labelling
from mass_serve.kernels.activation_names import HeadActivation
from mass_serve.kernels.activations import activate_


@dataclass(frozen=True)
class HiddenLayer:
    """A layer that some heads have before their classes': `LayerNorm(act(z V^T + c))`, in float32."""

    weight: Tensor  # V [H, P]
    bias: Tensor  # c [H]
    activation: HeadActivation
    norm: tuple[Tensor, Tensor, float] | None = None  # weight and bias [H], and epsilon, of the LayerNorm

    def __call__(self, z: Tensor) -> Tensor:
        """The hidden vectors [n, H] of z [n, P]."""
        hidden = activate_(kernels.linear(z, self.weight, self.bias), self.activation)
        if self.norm is None:
            return hidden
        weight, bias, eps = self.norm
        return F.layer_norm(hidden, weight.shape, weight, bias, eps)

    def to(self, device: torch.device) -> HiddenLayer:
        """The same layer on another device."""
        norm = self.norm
        if norm is not None:
            norm = norm[0].to(device), norm[1].to(device), norm[2]
        return HiddenLayer(self.weight.to(device), self.bias.to(device), self.activation, norm)


@dataclass(frozen=True)
class ClassificationHead:
    """A cosine head (`logit_scale` set) or a linear one (`bias` set), in float32.

    cosine: `logits = logit_scale * normalise(z) normalise(W)^T`; linear: `logits = z W^T + b`. With a hidden
    layer z is what that makes of the embedding.
    """

    weight: Tensor  # [C, P]; rows of unit length in a cosine head
    bias: Tensor | None = None  # [C]
    logit_scale: float | None = None  # the multiplier itself, not its logarithm
    hidden: HiddenLayer | None = None
    labelling: Labelling = MULTI_CLASS  # what its logits say of the labels
    means: Tensor | None = None  # [C, P] of a linear head whose rows are no directions that classes lie in
    # The class vectors [C, P], float32: the means, or the rows of the weight, at unit length.
    directions: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.bias is None) == (self.logit_scale is None):
            raise ValueError("a head is either cosine (logit_scale) or linear (bias)")
        if self.logit_scale is not None:
            object.__setattr__(self, "weight", F.normalize(self.weight.float(), dim=1))
        if self.means is not None:
            object.__setattr__(self, "means", F.normalize(self.means.float(), dim=1))
        object.__setattr__(self, "directions", self._directions())

    def to(self, device: torch.device) -> ClassificationHead:
        """The same head on another device."""
        bias = None if self.bias is None else self.bias.to(device)
        hidden = None if self.hidden is None else self.hidden.to(device)
        weight = self.weight.to(device)
        means = None if self.means is None else self.means.to(device)
        return ClassificationHead(weight, bias, self.logit_scale, hidden, self.labelling, means)

    @property
    def nbytes(self) -> int:
        """The memory of its matrices."""
        hidden = 0 if self.hidden is None else self.hidden.weight.nbytes
        return self.weight.nbytes + hidden + (0 if self.directions is self.weight else self.directions.nbytes)

    def _directions(self) -> Tensor:
        if self.means is not None:
            return self.means
        return self.weight if self.bias is None else F.normalize(self.weight.float(), dim=1)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """The cosines [n, C] between embeddings [n, P] and the class vectors, in float32.

        Unlike logits they can be compared between heads of any kind and scale.
        """
        return kernels.linear(F.normalize(self._entering(embeddings), dim=1), self.directions)

    def logits_and_cosines(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """What `logits` and `cosines` give, which are one product where they can be."""
        z = self._entering(embeddings)
        unit = F.normalize(z, dim=1)
        cosines = kernels.linear(unit, self.directions)
        if self.logit_scale is None:
            return kernels.linear(z, self.weight, self.bias), cosines
        same = self.directions is self.weight
        return (cosines if same else kernels.linear(unit, self.weight)) * self.logit_scale, cosines

    def logits(self, embeddings: Tensor) -> Tensor:
        """The logits [n, C] of embeddings [n, P], in float32."""
        z = self._entering(embeddings)
        if self.logit_scale is None:
            return kernels.linear(z, self.weight, self.bias)
        return kernels.linear(F.normalize(z, dim=1), self.weight) * self.logit_scale

    def _entering(self, embeddings: Tensor) -> Tensor:
        """Returns what enters the classes' linear, in float32."""
        z = embeddings.float()
        return z if self.hidden is None else self.hidden(z)
