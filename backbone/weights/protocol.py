"""What a forward pass asks of its weights."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from mass_serve.kernels.activations import Activation

ALL_ROWS = slice(None)


class EncoderWeights(Protocol):
    """The weights of a batch as operations, named as `backbone.architecture` names them.

    x is [B, n, d_in] with n tokens of each sample. A sample's bits depend on that sample and its weights
    alone.
    """

    @property
    def divisible(self) -> bool:
        """Tells whether the batch may be computed in shares of its samples, each with `of_samples`."""
        ...

    def of_samples(self, samples: slice) -> EncoderWeights:
        """The weights of those samples of the batch. Raises ValueError where they are not divisible."""
        ...

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        """`activation(x W^T + b) + skip` [B, n, d_out] with the linear `name`, or those rows of its W."""
        ...

    def layer_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        """`(x - mean(x)) / sqrt(var(x) + eps) * w + b` [B, n, D] with the LayerNorm `name`."""
        ...

    def add_positions(self, class_token: str | None, positions: str, patches: Tensor) -> Tensor:
        """The tokens [B, L, D] of patch embeddings [B, L - N, D] (see `kernels.positions.reference`).

        `class_token` is None where there is none.
        """
        ...


def token_rows(x: Tensor | None) -> Tensor | None:
    """[B, n, D] -> [B n, D]"""
    return None if x is None else x.flatten(0, 1)
