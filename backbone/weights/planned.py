"""The encoder's weights as planned kernel launches: the host reads no segment during a pass.

A record names the addresses of everything that one segment needs in a pass; a plan holds the records of the
segments of a batch, on the device (see `kernels.records` and `kernels.segment_plan`). One layout serves plain
weights too: they are one segment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mass_serve.backbone.architecture import AnyEmbedding, Architecture, PatchEmbedding, bias_of, weight_of
from mass_serve.backbone.expert_bank import ExpertBank
from mass_serve.backbone.expert_set import ExpertSet
from mass_serve.backbone.weights.protocol import ALL_ROWS
from mass_serve.kernels import BaseOnly
from mass_serve.kernels.activation_names import Activation
from mass_serve.kernels.attention.fused import first_attention, planned_attention
from mass_serve.kernels.embedding.fused import planned_added_rows, planned_embedding
from mass_serve.kernels.layer_norm.fused import planned_layer_norm
from mass_serve.kernels.low_rank.fused import planned_linear, planned_norm
from mass_serve.kernels.low_rank.places import LinearPlace, linear_fields
from mass_serve.kernels.positions.fused import planned_positions
from mass_serve.kernels.records import (
    Fields,
    LinearField,
    NormField,
    PositionField,
    norm_fields,
    position_fields,
    record,
)
from mass_serve.kernels.segment_plan import SegmentPlan, Tiling


class PositionPlace(NamedTuple):
    """Where the fields of a table of positions begin, and how many tokens it has."""

    field: int
    length: int


@dataclass(frozen=True)
class RecordLayout:
    """Where each operation's fields begin in a segment's record."""

    embedding: AnyEmbedding
    entered: dict[str, str]  # the linear that the rows of a LayerNorm enter next, by their names
    dtype: torch.dtype  # of all weights
    positions: dict[str, PositionPlace]
    linears: dict[str, LinearPlace]
    norms: dict[str, int]
    length: int
    max_segments: int | None  # of a batch; None: one for each sample
    may_own_weights: bool  # some segments may have weight matrices of their own

    @classmethod
    def plain(cls, architecture: Architecture, parameters: Mapping[str, Tensor]) -> RecordLayout:
        """The layout for plain weights, of which there may be only those that a first pass reads."""

        def place(linear: str, field: int) -> LinearPlace:
            d_out, d_in = parameters[weight_of(linear)].shape
            return LinearPlace(field, d_out, d_in, rank=0, max_rank=0, shared_weight=True)

        return cls._of(architecture, parameters, place, max_segments=1, may_own_weights=False)

    @classmethod
    def of_experts(cls, bank: ExpertBank, max_set_size: int, *, may_own_weights: bool = True) -> RecordLayout:
        """The layout for a bank's experts, with at most `max_set_size` tasks in a set.

        Not `may_own_weights` says that no set is materialised.
        """

        def place(linear: str, field: int) -> LinearPlace:
            parameter = weight_of(linear)
            ranks = sorted(bank.ranks.get(parameter, (0,)))
            d_out, d_in = bank.pretrained[parameter].shape
            max_rank = sum(ranks[-max_set_size:])
            shared, packed = parameter in bank.ranks, bank.has_packed_blocks
            return LinearPlace(field, d_out, d_in, ranks[-1], max_rank, shared, packed)

        return cls._of(
            bank.architecture, bank.pretrained, place, max_segments=None, may_own_weights=may_own_weights
        )

    @classmethod
    def _of(
        cls,
        architecture: Architecture,
        parameters: Mapping[str, Tensor],
        place: Callable[[str, int], LinearPlace],
        *,
        max_segments: int | None,
        may_own_weights: bool,
    ) -> RecordLayout:
        positions: dict[str, PositionPlace] = {}
        linears: dict[str, LinearPlace] = {}
        norms: dict[str, int] = {}
        there, shapes = frozenset(parameters), architecture.parameter_shapes()
        length = 0
        for name in architecture.positions:
            if name in there:
                positions[name] = PositionPlace(length, shapes[name][0])
                length += len(PositionField)
        for linear in architecture.linears:
            if weight_of(linear) in there:
                linears[linear] = place(linear, length)
                length += len(LinearField)
        for norm in architecture.norms:
            if weight_of(norm) in there:
                norms[norm] = length
                length += len(NormField)
        dtype = next(iter(parameters.values())).dtype
        return cls(
            architecture.embedding,
            architecture.entered,
            dtype,
            positions,
            linears,
            norms,
            length,
            max_segments,
            may_own_weights,
        )

    def plan(self, samples: int, device: torch.device, tilings: Sequence[Tiling] = ()) -> SegmentPlan:
        """An empty plan for at most so many samples; `tilings` as `SegmentPlan` takes them."""
        segments = samples if self.max_segments is None else min(samples, self.max_segments)
        return SegmentPlan(
            samples,
            segments,
            self.length,
            device,
            tilings=tilings,
            may_own_weights=self.may_own_weights,
        )

    def dense_record(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The record [length] of plain weights. They must live as long as it is used."""
        linears = {
            place.field: linear_fields(BaseOnly(parameters.get(bias_of(name))), parameters[weight_of(name)])
            for name, place in self.linears.items()
        }
        return record(self.length, linears | self._vector_fields(parameters))

    def expert_record(self, bank: ExpertBank, expert_set: ExpertSet) -> Tensor:
        """The record [length] of an expert set. It and the bank must live as long as the record is used."""
        linears: dict[int, Fields] = {}
        for name, place in self.linears.items():
            linears[place.field] = linear_fields(expert_set.deltas[name], bank.pretrained[weight_of(name)])
        return record(self.length, linears | self._vector_fields(expert_set.vectors))

    def _vector_fields(self, vectors: Mapping[str, Tensor]) -> dict[int, Fields]:
        """The fields of everything that is no linear, by the place where they begin."""
        firsts: dict[str, Tensor | None] = {}
        if isinstance(self.embedding, PatchEmbedding):
            firsts[self.embedding.positions] = vectors.get(self.embedding.class_token)
        tokens = {
            place.field: position_fields(firsts.get(name), vectors[name])
            for name, place in self.positions.items()
        }
        norms = {
            place: norm_fields(vectors[weight_of(name)], vectors[bias_of(name)])
            for name, place in self.norms.items()
        }
        return tokens | norms


@dataclass(frozen=True)
class PlannedAttention:
    """`Attention` within the samples of a plan."""

    plan: SegmentPlan

    def of_all(self, qkv: Tensor, heads: int, reach: int | None) -> Tensor:
        return planned_attention(qkv, self.plan, heads=heads, reach=reach)

    def of_firsts(self, q: Tensor, kv: Tensor, heads: int, reach: int | None) -> Tensor:
        return first_attention(q, kv, self.plan, heads=heads, reach=reach)


class Shrunk(NamedTuple):
    """The rows of a LayerNorm, and what the same launch has computed of the linear that they enter next."""

    linear: str
    rows: Tensor
    h: Tensor  # see `kernels.low_rank.fused`


class PlannedWeights:
    """`EncoderWeights` by the records of a plan, for a batch of all of the plan's samples."""

    def __init__(self, layout: RecordLayout, plan: SegmentPlan) -> None:
        self.layout = layout
        self.plan = plan
        self._shrunk: Shrunk | None = None  # by the last LayerNorm

    @property
    def divisible(self) -> bool:
        """Tells that they are not: the plan's tiles are those of the whole batch."""
        return False

    def of_samples(self, samples: slice) -> PlannedWeights:
        raise ValueError(f"a planned pass is not divided, got samples {samples}")

    def of_tokens(self, offsets: Sequence[int]) -> PlannedWeights:
        return PlannedWeights(self.layout, self.plan.of_tokens(offsets))

    def words(self, name: str, ids: Tensor) -> Tensor:
        return planned_embedding(ids, self.plan, self.layout.linears[name], self.layout.dtype).unsqueeze(1)

    def add_rows(self, parameter: str, x: Tensor, places: Tensor) -> Tensor:
        field = self.layout.positions[parameter].field
        return planned_added_rows(x[:, 0], self.plan, places, field=field).unsqueeze(1)

    def linear(
        self,
        name: str,
        x: Tensor,
        *,
        output_rows: slice = ALL_ROWS,
        activation: Activation | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        shrunk = None
        if self._shrunk is not None and self._shrunk.linear == name and self._shrunk.rows is x:
            shrunk, self._shrunk = self._shrunk.h, None
        y = planned_linear(
            x.contiguous().flatten(0, 1),
            self.plan,
            self.layout.linears[name],
            tokens=x.shape[1],
            output_rows=output_rows,
            activation=activation,
            skip=skip,
            shrunk=shrunk,
        )
        return y.view(x.shape[0], x.shape[1], -1)

    def layer_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        field, tokens = self.layout.norms[name], x.shape[1]
        linear = self.layout.entered.get(name)
        place = None if linear is None else self.layout.linears.get(linear)
        if linear is None or place is None or not place.max_rank:
            return planned_layer_norm(x, self.plan, field=field, tokens=tokens, eps=eps)
        rows, h = planned_norm(x.flatten(0, 1), self.plan, place, field, tokens=tokens, eps=eps)
        self._shrunk = Shrunk(linear, rows.view(x.shape), h)
        return self._shrunk.rows

    def add_positions(
        self,
        class_token: str | None,  # noqa: ARG002 - a record has one, the embedding's
        positions: str,
        patches: Tensor,
    ) -> Tensor:
        field, length = self.layout.positions[positions]
        return planned_positions(patches, self.plan, field=field, length=length)

    @property
    def attention(self) -> PlannedAttention:
        return PlannedAttention(self.plan)
