"""The encoder's weights as operations: plain, or with each segment's experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from mass_serve import kernels
from mass_serve.backbone.expert_bank import ExpertBank, ExpertSet
from mass_serve.kernels.activations import Activation

ALL_ROWS = slice(None)


class EncoderWeights(Protocol):
    """What the forward pass asks of its weights; x is [B, n, d_in] with n tokens of each sample."""

    def of_samples(self, samples: slice) -> EncoderWeights:
        """The weights of those samples of the batch."""
        ...

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """`activation(x W^T + b) + residual` [B, n, d_out] with the linear `name`, or those rows of its W."""
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

    def of_samples(self, samples: slice) -> DenseWeights:  # noqa: ARG002 - all samples share them
        return self

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        bias = None if bias is None else bias[output_rows]
        y = kernels.linear(x.flatten(0, 1), weight[output_rows], bias, activation, _rows(residual))
        return y.view(x.shape[0], x.shape[1], -1)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.layer_norm_eps)

    def add_positions(self, patches: Tensor) -> Tensor:
        parameters = self.parameters
        class_embedding, positions = parameters["class_embedding"], parameters["position_embedding.weight"]
        return kernels.segmented_positions(patches, [class_embedding], [positions], [0, len(patches)])


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

    def of_samples(self, samples: slice) -> SegmentedWeights:
        cut = [min(max(offset, samples.start), samples.stop) for offset in self.segment_offsets]
        kept = [i for i in range(len(self.expert_sets)) if cut[i + 1] > cut[i]]
        return SegmentedWeights(
            self.pretrained,
            self.bank,
            [self.expert_sets[i] for i in kept],
            [0, *(cut[i + 1] - samples.start for i in kept)],
            self.layer_norm_eps,
        )

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        weight, blocks = self.pretrained[f"{name}.weight"], self.bank.blocks.get(name)
        deltas = [expert_set.delta(name) for expert_set in self.expert_sets]
        if output_rows is not ALL_ROWS:
            weight = weight[output_rows]
            blocks = None if blocks is None else blocks.output_rows(output_rows)
            deltas = [delta.output_rows(output_rows) for delta in deltas]
        row_offsets = [offset * x.shape[1] for offset in self.segment_offsets]
        y = kernels.segmented_linear(
            x.flatten(0, 1), weight, blocks, deltas, row_offsets, activation, _rows(residual)
        )
        return y.view(x.shape[0], x.shape[1], -1)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        vectors = [expert_set.vectors for expert_set in self.expert_sets]
        y = kernels.segmented_layer_norm(
            x.flatten(0, 1),
            [of_set[f"{name}.weight"] for of_set in vectors],
            [of_set[f"{name}.bias"] for of_set in vectors],
            [offset * x.shape[1] for offset in self.segment_offsets],
            self.layer_norm_eps,
        )
        return y.view(x.shape)

    def add_positions(self, patches: Tensor) -> Tensor:
        vectors = [expert_set.vectors for expert_set in self.expert_sets]
        class_embeddings = [of_set["class_embedding"] for of_set in vectors]
        positions = [of_set["position_embedding.weight"] for of_set in vectors]
        return kernels.segmented_positions(patches, class_embeddings, positions, self.segment_offsets)


def _rows(x: Tensor | None) -> Tensor | None:
    """[B, n, D] -> [B n, D]"""
    return None if x is None else x.flatten(0, 1)
