"""How much of what enters a pass's linears lies in each task's subspace."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mass_serve import kernels
from mass_serve.backbone.linear import ALL_ROWS, EncoderWeights
from mass_serve.kernels.activations import Activation

# Every third token tells as much as all of them (the README's suites), at a third of the cost. Three divides
# the side of hardly any grid of patches, so that the tokens are of all its columns.
TOKEN_STRIDE = 3


class EnergyMeter:
    """Weights that measure what goes through some of their linears, and change nothing."""

    def __init__(self, weights: EncoderWeights, bases: Mapping[str, Tensor]) -> None:
        """`bases` holds, by linear, orthonormal rows [T, R, d_in] of each task's blocks, float32."""
        self._weights = weights
        self._bases = bases
        self._seen: list[Tensor] = []

    def of_samples(self, samples: slice) -> EnergyMeter:
        return EnergyMeter(self._weights.of_samples(samples), self._bases)

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        if name in self._bases:
            self.measure(name, x)
        return self._weights.linear(
            name, x, output_rows=output_rows, activation=activation, residual=residual
        )

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        return self._weights.layer_norm(name, x)

    def add_positions(self, patches: Tensor) -> Tensor:
        return self._weights.add_positions(patches)

    def measure(self, name: str, x: Tensor) -> None:
        """Counts x [B, L, d_in], the input of the linear `name`."""
        self._seen.append(kernels.subspace_energies(x[:, ::TOKEN_STRIDE], self._bases[name]))

    @property
    def energies(self) -> Tensor:
        """Of every measured linear, [B, K, T] float32 for K linears in forward order."""
        return torch.stack(self._seen, dim=1)
