"""One set of weights for every sample, as functions that gradients go through."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.backbone.architecture import bias_of, weight_of
from mass_serve.backbone.weights.dense import DenseWeights
from mass_serve.backbone.weights.protocol import ALL_ROWS
from mass_serve.kernels.activation_names import Activation


class TrainableWeights(DenseWeights):
    """`EncoderWeights` whose parameters may want gradients: nothing is written in place.

    Embeddings are those of `DenseWeights` but for rounding, which depends on the batch here. Encoders
    whose MLPs are gated, or whose positions are rotary, write in place elsewhere, and texts are not read.
    """

    @property
    def divisible(self) -> bool:
        return False  # shares run on other threads, each in the caller's inference mode

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        weight, bias = self.parameters[weight_of(name)], self.parameters.get(bias_of(name))
        y = F.linear(x, weight[output_rows], None if bias is None else bias[output_rows])
        if activation is not None:
            y = _activated(y, activation)
        return y if skip is None else y + skip

    def add_positions(self, class_token: str | None, positions: str, patches: Tensor) -> Tensor:
        own = self.parameters[positions]
        before = own.new_zeros(len(own) - patches.shape[1], own.shape[1])
        if class_token is not None:
            before = torch.cat([self.parameters[class_token].unsqueeze(0), before[1:]])
        return torch.cat([before.expand(len(patches), -1, -1), patches], dim=1) + own


def _activated(x: Tensor, activation: Activation) -> Tensor:
    match activation:
        case "quick_gelu":
            return x * torch.sigmoid(1.702 * x)
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "silu":
            return F.silu(x)
