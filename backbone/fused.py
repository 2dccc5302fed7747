"""The encoder's weights as planned kernel launches: nothing in a pass looks at a segment on the host.

A record names the addresses of everything that one segment needs in a pass; a plan holds the records of the
segments of a batch, on the device (see `kernels.segment_plan`). One layout serves plain weights too: they are
one segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.backbone.expert_bank import POSITIONS, ExpertBank, ExpertSet
from mass_serve.kernels import SegmentDelta
from mass_serve.kernels.activations import Activation
from mass_serve.kernels.layer_norm.fused import LAYER_NORM_FIELDS, planned_layer_norm
from mass_serve.kernels.low_rank.fused import LinearPlace, linear_record, planned_linear
from mass_serve.kernels.positions.fused import POSITION_FIELDS, planned_positions
from mass_serve.kernels.segment_plan import LINEAR_FIELDS, SegmentPlan

ALL_ROWS = slice(None)
CLASS = "class_embedding"


@dataclass(frozen=True)
class RecordLayout:
    """Where each parameter stands in a segment's record."""

    linears: dict[str, LinearPlace]
    layer_norms: dict[str, int]
    length: int

    @classmethod
    def of(cls, parameters: Mapping[str, Tensor], bank: ExpertBank | None, max_set_size: int) -> RecordLayout:
        """For those parameters, with the experts of a bank, up to `max_set_size` tasks in a set, or plain."""
        linears: dict[str, LinearPlace] = {}
        layer_norms: dict[str, int] = {}
        length = POSITION_FIELDS
        for parameter, tensor in parameters.items():
            name = parameter.removesuffix(".weight")
            if name == parameter or parameter == POSITIONS:
                continue
            if tensor.ndim == 1:
                layer_norms[name] = length
                length += LAYER_NORM_FIELDS
                continue
            blocks = None if bank is None else bank.blocks.get(name)
            rank = 0 if blocks is None else blocks.vh.shape[1]
            shared = bank is None or blocks is not None
            linears[name] = LinearPlace(
                length, tensor.shape[0], tensor.shape[1], rank, rank * max_set_size, shared
            )
            length += LINEAR_FIELDS
        return cls(linears, layer_norms, length)

    def dense_record(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The record [length] of plain weights. They must live as long as it is used."""
        deltas = {name: SegmentDelta((), None, parameters.get(f"{name}.bias")) for name in self.linears}
        return self._record(parameters, parameters, deltas, None)

    def expert_record(self, bank: ExpertBank, expert_set: ExpertSet) -> Tensor:
        """The record [length] of an expert set, which must live as long as it is used."""
        deltas = {name: expert_set.delta(name) for name in self.linears}
        return self._record(bank.pretrained, expert_set.vectors, deltas, bank)

    def _record(
        self,
        weights: Mapping[str, Tensor],
        vectors: Mapping[str, Tensor],
        deltas: Mapping[str, SegmentDelta],
        bank: ExpertBank | None,
    ) -> Tensor:
        record = torch.zeros(self.length, dtype=torch.int64)
        record[0], record[1] = vectors[CLASS].data_ptr(), vectors[POSITIONS].data_ptr()
        for name, field in self.layer_norms.items():
            record[field] = vectors[f"{name}.weight"].data_ptr()
            record[field + 1] = vectors[f"{name}.bias"].data_ptr()
        for name, place in self.linears.items():
            blocks = None if bank is None else bank.blocks.get(name)
            fields = linear_record(deltas[name], weights[f"{name}.weight"], blocks)
            record[place.field : place.field + LINEAR_FIELDS] = torch.tensor(fields)
        return record


class FusedWeights:
    """`EncoderWeights` by the records of a plan, for a batch of all of the plan's samples."""

    def __init__(self, layout: RecordLayout, plan: SegmentPlan, layer_norm_eps: float) -> None:
        self.layout = layout
        self.plan = plan
        self.layer_norm_eps = layer_norm_eps

    def of_samples(self, samples: slice) -> FusedWeights:
        if samples.indices(self.plan.samples) != (0, self.plan.samples, 1):
            raise ValueError(f"a planned pass is not divided, got samples {samples}")
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
        y = planned_linear(
            x.contiguous().flatten(0, 1),
            self.plan,
            self.layout.linears[name],
            tokens=x.shape[1],
            output_rows=output_rows,
            activation=activation,
            residual=residual,
        )
        return y.view(x.shape[0], x.shape[1], -1)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        field = self.layout.layer_norms[name]
        return planned_layer_norm(x, self.plan, field=field, tokens=x.shape[1], eps=self.layer_norm_eps)

    def add_positions(self, patches: Tensor) -> Tensor:
        return planned_positions(patches, self.plan, field=0)
