"""What a forward pass asks of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from mass_serve.kernels.activation_names import Activation

ALL_ROWS = slice(None)


class Attention(Protocol):
    """The attention within the samples of a pass (see `kernels.attention`)."""

    def of_all(self, qkv: Tensor, heads: int, reach: int | None) -> Tensor:
        """That of every token, [B, n, D] of qkv [B, n, 3 D]; keys at most `reach` places away, or all."""
        ...

    def of_firsts(self, q: Tensor, kv: Tensor, heads: int, reach: int | None) -> Tensor:
        """That of one query of each sample at its first place, [B, 1, D] of q [B, 1, D], kv [B, n, 2 D]."""
        ...


class EncoderWeights(Protocol):
    """The weights of a batch as operations, named as `backbone.architecture` names them.

    x is [B, n, d_in] with n tokens of each sample. A sample's bits depend on that sample and its weights
    alone.
    """

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

    def words(self, name: str, ids: Tensor) -> Tensor:
        """The rows `ids` [B] of the table `name`, each a token of one sample: [B, 1, D]."""
        ...

    def add_rows(self, parameter: str, x: Tensor, places: Tensor) -> Tensor:
        """`x + table[places]` [B, 1, D] of x [B, 1, D]; x alone where a place is -1."""
        ...

    @property
    def attention(self) -> Attention | None:
        """The attention that such weights come with; None: PyTorch's, for each length by itself."""
        ...


class BatchWeights(EncoderWeights, Protocol):
    """The weights of a batch, of which those of a part of it can be had."""

    @property
    def divisible(self) -> bool:
        """Tells whether the batch may be computed in shares of its samples, each with `of_samples`."""
        ...

    def of_samples(self, samples: slice) -> BatchWeights:
        """The weights of those samples of the batch. Raises ValueError where they are not divisible."""
        ...

    def of_tokens(self, offsets: Sequence[int]) -> EncoderWeights:
        """The weights of a batch whose samples are the tokens of this one's.

        Tokens `offsets[i]:offsets[i + 1]` are sample i's. Raises ValueError where they have none.
        """
        ...


def token_rows(x: Tensor | None) -> Tensor | None:
    """[B, n, D] -> [B n, D]"""
    return None if x is None else x.flatten(0, 1)
