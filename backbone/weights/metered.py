"""Weights that measure how much of what enters some of their linears lies in each task's subspace."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mass_serve import kernels
from mass_serve.backbone.architecture import Token
from mass_serve.backbone.layout import Layout
from mass_serve.backbone.weights.protocol import ALL_ROWS, Attention, EncoderWeights
from mass_serve.kernels.activation_names import Activation


class MeteredWeights:
    """`EncoderWeights` that compute what others do, and beside it the subspace energies of their inputs."""

    def __init__(
        self,
        weights: EncoderWeights,
        bases: Mapping[str, kernels.TaskDirections],
        layout: Layout,
        token_stride: int,
        token: Token | None = None,
    ) -> None:
        """`weights` are those of a layout's tokens.

        `bases` holds, by linear, the directions of each task. Measured is every `token_stride`-th token, or
        one `token` alone: the first, which is the class token, or the mean.
        """
        self._weights = weights
        self._bases = bases
        self._layout = layout
        self._token_stride = token_stride
        self._token = token
        self._measured: list[tuple[str, Tensor]] = []

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        self.measure(name, x)
        return self._weights.linear(name, x, output_rows=output_rows, activation=activation, skip=skip)

    def layer_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return self._weights.layer_norm(name, x, eps)

    def add_positions(self, class_token: str | None, positions: str, patches: Tensor) -> Tensor:
        return self._weights.add_positions(class_token, positions, patches)

    def words(self, name: str, ids: Tensor) -> Tensor:
        return self._weights.words(name, ids)

    def add_rows(self, parameter: str, x: Tensor, places: Tensor) -> Tensor:
        return self._weights.add_rows(parameter, x, places)

    @property
    def attention(self) -> Attention | None:
        return self._weights.attention

    def measure(self, name: str, x: Tensor) -> None:
        """Measures the tokens x, the input of the linear `name`, if that is one of those with bases."""
        if name in self._bases:
            self._measured.append((name, self._energies(x, self._bases[name])))

    def _energies(self, x: Tensor, basis: kernels.TaskDirections) -> Tensor:
        """The energies of every sample; those of one token are a single product, however long samples are."""
        match self._token:
            case "class":
                return kernels.subspace_energies(self._layout.firsts(x), basis)
            case "mean":
                means = self._layout.reduced(lambda tokens: tokens.mean(1, keepdim=True), x)
                return kernels.subspace_energies(means, basis)
        stride = self._token_stride
        return self._layout.reduced(lambda tokens: kernels.subspace_energies(tokens[:, ::stride], basis), x)

    @property
    def energies(self) -> Tensor:
        """The energies [B, K, T] float32 of the K measured linears, in forward order.

        Raises ValueError unless every linear with a basis was measured exactly once.
        """
        names = [name for name, _ in self._measured]
        if sorted(names) != sorted(self._bases):
            raise ValueError(f"energies of {sorted(self._bases)} were asked for, and {names} are on the pass")
        return torch.stack([energies for _, energies in self._measured], dim=1)
