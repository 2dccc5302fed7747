"""The passes of one store in planned kernel launches: each kind of pass has plans and graphs of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from torch import Tensor

from mass_serve.backbone.expert_bank import ExpertBank
from mass_serve.backbone.expert_set import ExpertSet
from mass_serve.backbone.graphs import Graphs
from mass_serve.backbone.one_pass import PassResult, Probe, Stop, run
from mass_serve.backbone.packed import Batch, Packed
from mass_serve.backbone.planned_pass import BATCH_SIZES, PlannedPass
from mass_serve.backbone.weights.planned import PlannedWeights, RecordLayout
from mass_serve.kernels.segment_plan import SegmentPlan, Tiling


class PlannedPasses:
    """`backbone.passes.Passes` for a device with fused kernels. It is not thread-safe."""

    def __init__(
        self,
        bank: ExpertBank,
        first_pass_weights: Mapping[str, Tensor],
        max_set_size: int,
        may_own_weights: bool,
    ) -> None:
        self._bank = bank
        self._kept = first_pass_weights  # the record holds their addresses
        self._plain = RecordLayout.plain(bank.architecture, first_pass_weights)
        self._plain_record = self._plain.dense_record(first_pass_weights)
        self._experts = RecordLayout.of_experts(bank, max_set_size, may_own_weights=may_own_weights)
        self._records: WeakKeyDictionary[ExpertSet, Tensor] = WeakKeyDictionary()
        self._planned: dict[tuple[object, ...], PlannedPass] = {}
        self._text_tilings: set[Tiling] = set()  # of all passes over texts so far
        # One thread runs them, one at a time: the graphs of all kinds of pass share the same memory.
        self._graphs = Graphs(bank.device) if bank.device.type == "cuda" else None

    def first(
        self,
        x: Batch,
        start: int | None = None,
        stop: Stop = "embedding",
        probe: Probe | None = None,
        mlp_share: float = 1.0,
    ) -> PassResult:
        segments = (0, len(x)), [self._plain_record], [False]
        if isinstance(x, Packed):
            return self._of_texts(self._plain, x, *segments, start, stop, probe, mlp_share)
        return self._pass("first", self._plain, start, stop, probe or Probe(), mlp_share)(x, *segments)

    def second(
        self, x: Batch, expert_sets: Sequence[ExpertSet], offsets: Sequence[int], start: int | None = None
    ) -> Tensor:
        return self._with_experts(x, expert_sets, offsets, start, "embedding").embedding

    def states(self, x: Batch, expert_sets: Sequence[ExpertSet], offsets: Sequence[int]) -> Batch:
        return self._with_experts(x, expert_sets, offsets, None, "states").states

    def graph_sizes(self, largest: int) -> Sequence[int]:
        has_graphs = self._graphs is not None and not self._bank.architecture.reads_text
        return BATCH_SIZES[: bisect_left(BATCH_SIZES, largest) + 1] if has_graphs else ()

    def _with_experts(
        self,
        x: Batch,
        expert_sets: Sequence[ExpertSet],
        offsets: Sequence[int],
        start: int | None,
        stop: Stop,
    ) -> PassResult:
        records = [self._record(expert_set) for expert_set in expert_sets]
        segments = offsets, records, [expert_set.materialised for expert_set in expert_sets]
        if isinstance(x, Packed):
            return self._of_texts(self._experts, x, *segments, start, stop)
        return self._pass("second", self._experts, start, stop, Probe())(x, *segments)

    def _of_texts(
        self,
        layout: RecordLayout,
        x: Packed,
        offsets: Sequence[int],
        records: Sequence[Tensor],
        own_weights: Sequence[bool],
        start: int | None,
        stop: Stop,
        probe: Probe | None = None,
        mlp_share: float = 1.0,
    ) -> PassResult:
        """A pass over texts, launched from a plan for these lengths: they make other shapes in every batch.

        So there is no graph of it to be replayed.
        """
        known = self._text_tilings
        plan = SegmentPlan(
            len(x),
            len(records),
            layout.length,
            x.device,
            tilings=list(known),
            may_own_weights=any(own_weights),
        )
        plan.update(offsets, records, own_weights)
        weights = PlannedWeights(layout, plan)
        result = run(self._bank.architecture, weights, x, start, stop, probe, mlp_share)
        known |= plan.asked  # so that the next plan, and that of its tokens, is sent as a whole
        return result

    def _pass(
        self,
        kind: str,
        layout: RecordLayout,
        start: int | None,
        stop: Stop,
        probe: Probe,
        mlp_share: float = 1.0,
    ) -> PlannedPass:
        """The plans and graphs of that kind of pass, made when it is asked for first."""
        key = (kind, start, stop, probe.key, mlp_share)
        if key not in self._planned:
            self._planned[key] = PlannedPass(
                self._bank.architecture, layout, start, stop, probe, mlp_share, self._graphs
            )
        return self._planned[key]

    def _record(self, expert_set: ExpertSet) -> Tensor:
        if expert_set not in self._records:
            self._records[expert_set] = self._experts.expert_record(self._bank, expert_set)
        return self._records[expert_set]
