"""CLIP's text tower, in plain PyTorch: token ids in, embeddings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.backbone.architecture import Block, BlockNames, Shapes, bias_of, weight_of
from mass_serve.kernels.activations import activate_

TOKENS = weight_of("token_embedding")
POSITIONS = weight_of("position_embedding")
FINAL_NORM = "final_layernorm"
PROJECTION = weight_of("projection")


@dataclass(frozen=True)
class TextArchitecture:
    """Token and position embeddings, causal pre-norm blocks, the end token's LayerNorm and projection."""

    vocabulary: int  # V, token ids
    context_length: int  # L, the most tokens of a text
    block: Block
    depth: int  # blocks
    projection_dim: int  # P
    end_token: int | None  # a text's embedding is at its first such token; None: at its first largest id

    def __post_init__(self) -> None:
        if self.context_length < 3:
            raise ValueError(
                f"context_length {self.context_length} leaves no place between a start and an end token"
            )

    @property
    def width(self) -> int:
        """D, the width of a token."""
        return self.block.width

    def blocks(self) -> Iterator[BlockNames]:
        """The names of every block's operations."""
        return map(BlockNames, range(self.depth))

    def parameter_shapes(self) -> Shapes:
        """The shape of every parameter by its name, in forward order."""
        shapes: Shapes = {TOKENS: (self.vocabulary, self.width), POSITIONS: (self.context_length, self.width)}
        for index in range(self.depth):
            shapes |= self.block.shapes(index)
        norm = {of(FINAL_NORM): (self.width,) for of in (weight_of, bias_of)}
        return shapes | norm | {PROJECTION: (self.projection_dim, self.width)}


@dataclass(frozen=True)
class TextTower:
    """A text tower with its weights."""

    architecture: TextArchitecture
    weights: Mapping[str, Tensor]  # float32, by the architecture's names
    logit_scale: float  # by which cosines between its embeddings and images' are multiplied

    def embed(self, ids: Tensor) -> Tensor:
        """Computes the embeddings [n, P] of texts [n, l], l <= L: `LN(blocks(E[ids] + positions))[end] W^T`.

        Attention is causal, so that nothing behind a text's end token has a part in its embedding. Raises
        ValueError for a text that has no end token.
        """
        tokens = F.embedding(ids, self.weights[TOKENS]) + self.weights[POSITIONS][: ids.shape[1]]
        for names in self.architecture.blocks():
            tokens = self._block(names, tokens)
        last = tokens[torch.arange(len(ids)), self._ends(ids)]
        return F.linear(self._norm(FINAL_NORM, last), self.weights[PROJECTION])

    def _block(self, names: BlockNames, x: Tensor) -> Tensor:
        x = x + self._linear(names.out, self._attention(self._linear(names.qkv, self._norm(names.norm1, x))))
        hidden = self._linear(names.fc1, self._norm(names.norm2, x))
        return x + self._linear(names.fc2, activate_(hidden, self.architecture.block.activation))

    def _attention(self, qkv: Tensor) -> Tensor:
        texts, length, _ = qkv.shape
        heads = self.architecture.block.num_attention_heads
        q, k, v = qkv.view(texts, length, 3, heads, -1).permute(
            2, 0, 3, 1, 4
        )  # each [n, heads, l, D / heads]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(texts, length, -1)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[weight_of(name)], self.weights[bias_of(name)])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[weight_of(name)], self.weights[bias_of(name)]
        return F.layer_norm(x, weight.shape, weight, bias, self.architecture.block.layer_norm_eps)

    def _ends(self, ids: Tensor) -> Tensor:
        """Returns the place of every text's end token, [n]."""
        end = self.architecture.end_token
        if end is None:
            return ids.argmax(1)
        found = ids == end
        if not found.any(1).all():
            raise ValueError(f"a text has no end token, which is {end}")
        return found.int().argmax(1)
