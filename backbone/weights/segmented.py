"""The weights of a batch whose segments have different experts, operation by operation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mass_serve import kernels
from mass_serve.backbone.architecture import bias_of, weight_of
from mass_serve.backbone.expert_bank import ExpertBank
from mass_serve.backbone.expert_set import ExpertSet
from mass_serve.backbone.parameters import table_of
from mass_serve.backbone.weights.protocol import ALL_ROWS, token_rows
from mass_serve.kernels.activation_names import Activation


class SegmentedWeights:
    """`EncoderWeights` of a sorted batch: the pretrained weights with each segment's expert set on top."""

    def __init__(
        self, bank: ExpertBank, expert_sets: Sequence[ExpertSet], segment_offsets: Sequence[int]
    ) -> None:
        """Samples `segment_offsets[i]:segment_offsets[i + 1]` use `expert_sets[i]`."""
        self.bank = bank
        self.expert_sets = expert_sets
        self.segment_offsets = segment_offsets

    @property
    def divisible(self) -> bool:
        return True

    def of_samples(self, samples: slice) -> SegmentedWeights:
        cut = [min(max(offset, samples.start), samples.stop) for offset in self.segment_offsets]
        kept = [i for i in range(len(self.expert_sets)) if cut[i + 1] > cut[i]]
        return SegmentedWeights(
            self.bank,
            [self.expert_sets[i] for i in kept],
            [0, *(cut[i + 1] - samples.start for i in kept)],
        )

    def of_tokens(self, offsets: Sequence[int]) -> SegmentedWeights:
        return SegmentedWeights(
            self.bank, self.expert_sets, [offsets[sample] for sample in self.segment_offsets]
        )

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        weight = self.bank.forms[weight_of(name)]
        deltas = [expert_set.deltas[name] for expert_set in self.expert_sets]
        if output_rows is not ALL_ROWS:
            weight = weight[output_rows]
            deltas = [delta.output_rows(output_rows) for delta in deltas]
        rows = [offset * x.shape[1] for offset in self.segment_offsets]
        y = kernels.segmented_linear(x.flatten(0, 1), weight, deltas, rows, activation, token_rows(skip))
        return y.view(x.shape[0], x.shape[1], -1)

    def layer_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        rows = [offset * x.shape[1] for offset in self.segment_offsets]
        own = self._vectors(weight_of(name)), self._vectors(bias_of(name))
        return kernels.segmented_layer_norm(x.flatten(0, 1), *own, rows, eps).view(x.shape)

    def add_positions(self, class_token: str | None, positions: str, patches: Tensor) -> Tensor:
        first = None if class_token is None else self._vectors(class_token)
        return kernels.segmented_positions(patches, first, self._vectors(positions), self.segment_offsets)

    def words(self, name: str, ids: Tensor) -> Tensor:
        table = table_of(self.bank.forms, name)
        deltas = [expert_set.deltas[name] for expert_set in self.expert_sets]
        return kernels.segmented_embedding(ids, table, deltas, self.segment_offsets).unsqueeze(1)

    def add_rows(self, parameter: str, x: Tensor, places: Tensor) -> Tensor:
        tables = self._vectors(parameter)
        return kernels.segmented_added_rows(x[:, 0], tables, places, self.segment_offsets).unsqueeze(1)

    def _vectors(self, parameter: str) -> list[Tensor]:
        return [expert_set.vectors[parameter] for expert_set in self.expert_sets]

    @property
    def attention(self) -> None:
        return None
