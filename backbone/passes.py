"""The passes over a batch that serve a store, in the form of the arithmetic that fits the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from mass_serve.backbone.expert_bank import ExpertBank
from mass_serve.backbone.expert_set import ExpertSet
from mass_serve.backbone.one_pass import PassResult, Probe, Stop, run
from mass_serve.backbone.packed import Batch
from mass_serve.backbone.parameters import Parameters
from mass_serve.backbone.weights.dense import DenseWeights
from mass_serve.backbone.weights.segmented import SegmentedWeights
from mass_serve.kernels.backend import backend_for


class Passes(Protocol):
    """The first and the second pass of one store. The parameters are those of `one_pass.run`."""

    def first(
        self,
        x: Batch,
        start: int | None = None,
        stop: Stop = "embedding",
        probe: Probe | None = None,
        mlp_share: float = 1.0,
    ) -> PassResult:
        """A pass, or a part of one, on the first pass's weights."""
        ...

    def second(
        self, x: Batch, expert_sets: Sequence[ExpertSet], offsets: Sequence[int], start: int | None = None
    ) -> Tensor:
        """The embeddings [B, P]; samples `offsets[i]:offsets[i + 1]` have `expert_sets[i]`."""
        ...

    def states(self, x: Batch, expert_sets: Sequence[ExpertSet], offsets: Sequence[int]) -> Batch:
        """The last hidden states of all tokens, packed or [B, L, D], of passes as `second` runs them."""
        ...

    def graph_sizes(self, largest: int) -> Sequence[int]:
        """The batch sizes that have a graph of each kind of pass, from the first batch of that size on.

        They are those that batches of up to `largest` images are computed at; none where there are no graphs.
        """
        ...


def passes_for(
    bank: ExpertBank, first_pass_weights: Parameters, max_set_size: int, *, may_materialise: bool = True
) -> Passes:
    """The passes over a bank's encoder: planned where the bank's tensors are on a GPU.

    `first_pass_weights` holds the parameters that the first passes asked for will read; no expert set has
    more than `max_set_size` tasks, nor is materialised unless it `may_materialise`.
    """
    if backend_for(bank.device) == "fused":
        # Triton is there only where there is a GPU.
        from mass_serve.backbone.planned_passes import PlannedPasses

        return PlannedPasses(bank, first_pass_weights, max_set_size, may_materialise)
    return EagerPasses(bank, first_pass_weights)


class EagerPasses:
    """The passes launched operation by operation."""

    def __init__(self, bank: ExpertBank, first_pass_weights: Parameters) -> None:
        self._bank = bank
        self._first_pass_weights = DenseWeights(first_pass_weights)

    def first(
        self,
        x: Batch,
        start: int | None = None,
        stop: Stop = "embedding",
        probe: Probe | None = None,
        mlp_share: float = 1.0,
    ) -> PassResult:
        return run(self._bank.architecture, self._first_pass_weights, x, start, stop, probe, mlp_share)

    def second(
        self, x: Batch, expert_sets: Sequence[ExpertSet], offsets: Sequence[int], start: int | None = None
    ) -> Tensor:
        weights = SegmentedWeights(self._bank, expert_sets, offsets)
        return run(self._bank.architecture, weights, x, start).embedding

    def states(self, x: Batch, expert_sets: Sequence[ExpertSet], offsets: Sequence[int]) -> Batch:
        weights = SegmentedWeights(self._bank, expert_sets, offsets)
        return run(self._bank.architecture, weights, x, stop="states").states

    def graph_sizes(self, largest: int) -> Sequence[int]:  # noqa: ARG002 - there is none, however large
        return ()
