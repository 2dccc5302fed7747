"""The encoder's weights as operations: plain, or with each segment's experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from backbone.expert_bank import ExpertBank, ExpertSet

ALL_ROWS = slice(None)


class EncoderWeights(Protocol):
    """What the forward pass asks of its weights; x is [B, n, d_in] with n tokens of each sample."""

    def linear(self, name: str, x: Tensor, output_rows: slice = ALL_ROWS) -> Tensor:
        """The linear `name` (or those rows of its matrix) applied to x: [B, n, d_out]."""
        ...

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        """The LayerNorm `name` applied to x: [B, n, D]."""
        ...

    def add_positions(self, patches: Tensor) -> Tensor:
        """Patch embeddings [B, L - 1, D] behind the class embedding, positions added: [B, L, D]."""
        ...


class DenseWeights:
    """One set of weights for every sample: the pretrained encoder, the merged base, or any single model."""

    def __init__(self, parameters: Mapping[str, Tensor], layer_norm_eps: float) -> None:
        self.parameters = parameters
        self.layer_norm_eps = layer_norm_eps

    def linear(self, name: str, x: Tensor, output_rows: slice = ALL_ROWS) -> Tensor:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        y = kernels.linear(x.flatten(0, 1), weight[output_rows], None if bias is None else bias[output_rows])
        return y.view(x.shape[0], x.shape[1], -1)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.layer_norm_eps)

    def add_positions(self, patches: Tensor) -> Tensor:
        parameters = self.parameters
        return _add_positions(patches, parameters["class_embedding"], parameters["position_embedding.weight"])


class SegmentedWeights:
    """The pretrained weights with the expert set of each segment of a sorted batch on top."""

    def __init__(
        self,
        pretrained: Mapping[str, Tensor],
        bank: ExpertBank,
        expert_sets: Sequence[ExpertSet],
        segment_offsets: Sequence[int],
        layer_norm_eps: float,
    ) -> None:
        """Samples `segment_offsets[i]:segment_offsets[i + 1]` use `expert_sets[i]`."""
        self.pretrained = pretrained
        self.bank = bank
        self.expert_sets = expert_sets
        self.segment_offsets = segment_offsets
        self.layer_norm_eps = layer_norm_eps

    def linear(self, name: str, x: Tensor, output_rows: slice = ALL_ROWS) -> Tensor:
        tokens, blocks = x.shape[1], self.bank.blocks.get(name)
        y = kernels.segmented_linear(
            x.flatten(0, 1),
            self.pretrained[f"{name}.weight"][output_rows],
            None if blocks is None else blocks.output_rows(output_rows),
            [expert_set.delta(name).output_rows(output_rows) for expert_set in self.expert_sets],
            [offset * tokens for offset in self.segment_offsets],
        )
        return y.view(x.shape[0], x.shape[1], -1)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        for expert_set, segment in self._segments():
            weight, bias = expert_set.vectors[f"{name}.weight"], expert_set.vectors[f"{name}.bias"]
            y[segment] = F.layer_norm(x[segment], weight.shape, weight, bias, self.layer_norm_eps)
        return y

    def add_positions(self, patches: Tensor) -> Tensor:
        embedded = [
            _add_positions(
                patches[segment],
                expert_set.vectors["class_embedding"],
                expert_set.vectors["position_embedding.weight"],
            )
            for expert_set, segment in self._segments()
        ]
        return torch.cat(embedded)

    def _segments(self) -> list[tuple[ExpertSet, slice]]:
        starts, stops = self.segment_offsets, self.segment_offsets[1:]
        return [(e, slice(a, b)) for e, a, b in zip(self.expert_sets, starts, stops, strict=False)]


def _add_positions(patches: Tensor, class_embedding: Tensor, positions: Tensor) -> Tensor:
    tokens = patches.new_empty(patches.shape[0], patches.shape[1] + 1, patches.shape[2])
    tokens[:, 0] = class_embedding + positions[0]
    torch.add(patches, positions[1:], out=tokens[:, 1:])
    return tokens
