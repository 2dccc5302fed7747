"""A LayerNorm and the segmented linear behind it, as a pass launches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.kernels import Delta, MaterialisedWeight, SeveralTasks
from mass_serve.kernels.layer_norm.fused import planned_layer_norm
from mass_serve.kernels.low_rank.fused import planned_linear, planned_norm
from mass_serve.kernels.low_rank.places import LinearPlace, linear_fields
from mass_serve.kernels.records import LinearField, NormField, norm_fields, record
from mass_serve.kernels.segment_plan import SegmentPlan
from tests.interpreter import DEVICE
from tests.kernels.segmented import Case

EPS = 1e-5
NORM = len(LinearField)  # where the LayerNorm's fields begin


@dataclass(frozen=True)
class NormedCase:
    """The arguments of both; the rows of the last sample are the tail."""

    case: Case
    weights: list[Tensor]  # of the LayerNorm, [D] of each segment
    biases: list[Tensor]
    tokens: int

    @classmethod
    def random(
        cls,
        offsets: Sequence[int],
        tokens: int,
        shape: tuple[int, int],
        rank: int | Sequence[int],
        dtype: torch.dtype,
        *,
        partly: bool = False,
    ) -> NormedCase:
        """Segments of every kind, over samples of `tokens` rows that lie far from 0."""
        rows = tuple(tokens * offset for offset in offsets)
        case = Case.random(rows, *shape, rank, dtype, partly=partly).to(DEVICE)
        deltas: list[Delta] = [
            one.folded(dtype) if isinstance(one, SeveralTasks) else one for one in case.deltas
        ]
        if len(deltas) > 3:
            deltas[3] = MaterialisedWeight(case.weight.flip(0).contiguous(), deltas[3].bias)
        x = torch.cat([3 + 5 * case.x, case.x[:tokens]])
        vectors = torch.randn(2, len(deltas), shape[1], device=DEVICE).to(dtype)
        weights, biases = (list(map(Tensor.clone, of_segments)) for of_segments in vectors)
        return cls(Case(x, case.weight, deltas, rows), weights, biases, tokens)

    def plan(self) -> tuple[SegmentPlan, LinearPlace]:
        """The plan of all samples, and the linear in it."""
        own = self.case
        linears = [linear_fields(delta, own.weight) for delta in own.deltas]
        norms = [norm_fields(*pair) for pair in zip(self.weights, self.biases, strict=True)]
        length = len(LinearField) + len(NormField)
        records = [record(length, {0: a, NORM: b}) for a, b in zip(linears, norms, strict=True)]
        plan = SegmentPlan(len(own.x) // self.tokens, len(records), length, DEVICE)
        materialised = [isinstance(delta, MaterialisedWeight) for delta in own.deltas]
        plan.update([row // self.tokens for row in own.rows], records, materialised)
        rank = max(fields.get(LinearField.RANK, 0) for fields in linears)
        packed = any(fields.get(LinearField.BITS) for fields in linears)
        rank = max(1, rank)  # of a task that is not in the batch
        d_out, d_in = own.weight.shape
        place = LinearPlace(0, d_out, d_in, rank, rank, shared_weight=True, packed=packed)
        return plan, place

    def in_one_launch(self) -> tuple[Tensor, Tensor]:
        """The rows behind the LayerNorm, and the linear of them."""
        plan, place = self.plan()
        rows, h = planned_norm(self.case.x, plan, place, NORM, tokens=self.tokens, eps=EPS)
        return rows, planned_linear(rows, plan, place, tokens=self.tokens, shrunk=h)

    def apart(self) -> Tensor:
        """The rows of the LayerNorm's own kernel."""
        plan, _ = self.plan()
        return planned_layer_norm(self.case.x, plan, field=NORM, tokens=self.tokens, eps=EPS)

    def linear(self, rows: Tensor) -> Tensor:
        """The linear of rows that nobody has shrunk."""
        plan, place = self.plan()
        return planned_linear(rows, plan, place, tokens=self.tokens)
