"""From patches to decisions: the first pass and the router, in the two ways there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mass_serve.backbone import Passes
from mass_serve.engine.loading import LoadedStore
from mass_serve.engine.stages import StageClock
from mass_serve.router import (
    MODES,
    PAPER,
    Evidence,
    EvidenceRouter,
    SubspaceRouter,
    early_linears,
    early_stop,
    explained_share,
)

# Self-attention's share of a block's work: four of its twelve D x D products for every token.
ATTENTION_SHARE = 1 / 3
# What measuring early evidence adds to a block: three products with D x D bases for every third token.
EVIDENCE_SHARE = 3 / 12 / 3


@dataclass(frozen=True)
class Decision:
    """Which experts one sample gets, and why."""

    looks: tuple[tuple[int, ...], ...]  # the expert set of each of its second passes
    coefficients: dict[int, float]  # of every task in a look
    residuals: tuple[float, ...] = ()  # of every task; empty where they were not needed
    # How much the sample is like the images of each task that it is tried with, 0 to 1; empty where a task
    # was named.
    likeness: dict[int, float] = field(default_factory=dict)
    # The cosine of the first pass's embedding and each such task's nearest class vector; empty where there
    # was no such embedding.
    first_cosines: dict[int, float] = field(default_factory=dict)
    is_fallback: bool = False  # no task was above the threshold: it got the likeliest one
    passes: float = 1.0  # through the encoder, the first and the second together
    goes_on: bool = False  # its second pass begins where its first one stopped
    evidence: Evidence | None = None
    row: int = 0  # in `evidence`

    @classmethod
    def named(cls, task: int) -> Decision:
        """The caller left one task to choose from."""
        return cls(((task,),), {task: 1.0})

    @property
    def expert_set(self) -> tuple[int, ...]:
        """Every task that the sample is tried with, ascending."""
        return tuple(sorted(self.coefficients))

    def after_looks(self, signs: Mapping[int, Tensor]) -> dict[int, float]:
        """The coefficients, given the head signs [3] that each task's own second pass gave."""
        if len(self.looks) == 1:
            return self.coefficients
        assert self.evidence is not None
        return self.evidence.after_looks(self.row, signs)


@dataclass(frozen=True)
class Decided:
    """The decisions for a batch, and the tokens of the samples that go on from them."""

    decisions: list[Decision]
    tokens: Tensor | None = None  # [B, L, D], of every sample of the batch


class Decider(Protocol):
    """A first pass and a router."""

    @property
    def nbytes(self) -> int:
        """The memory of what it keeps beside the store's weights."""

    def decide(self, patches: Tensor, candidates: Tensor, clock: StageClock) -> Decided:
        """The decisions for patches [B, L - 1, 3 p p] among the tasks of the mask `candidates` [B, T]."""


def decider(loaded: LoadedStore, passes: Passes) -> Decider:
    """The one of the store's mode."""
    return PaperDecider(loaded, passes) if loaded.mode == PAPER else EvidenceDecider(loaded, passes)


class PaperDecider:
    """MASS as published (arXiv:2504.05342): one feature, residuals, an expert set."""

    def __init__(self, loaded: LoadedStore, passes: Passes) -> None:
        self._passes = passes
        self._depth = loaded.config.depth
        self._router = SubspaceRouter(loaded.router, loaded.bank.blocks[loaded.router_linear].vh)

    @property
    def nbytes(self) -> int:
        return self._router.projectors.nbytes

    def decide(self, patches: Tensor, candidates: Tensor, clock: StageClock) -> Decided:
        config = self._router.config
        with clock.stage("first_pass"):
            features = self._passes.first(patches)
        with clock.stage("route"):
            routing = self._router.route(features, candidates)
            explained = explained_share(features, routing.residuals)
        passes = (config.layer + ATTENTION_SHARE) / self._depth + 1
        decisions = []
        for row, tasks in enumerate(routing.expert_sets):
            coefficients = {task: float(routing.routing_coefficients[row, task]) for task in tasks}
            decisions.append(
                Decision(
                    (tasks,),
                    coefficients,
                    tuple(routing.residuals[row].tolist()),
                    {task: float(explained[row, task]) for task in tasks},
                    is_fallback=max(coefficients.values()) <= config.threshold,
                    passes=passes,
                )
            )
        return Decided(decisions)


class EvidenceDecider:
    """Early evidence for all; the whole of it for those of whom that is not enough."""

    def __init__(self, loaded: LoadedStore, passes: Passes) -> None:
        self._passes = passes
        self._depth = loaded.config.depth
        self._mode = MODES[loaded.mode]
        self._stop = early_stop(loaded.config.depth)
        early_share = self._stop / self._depth
        self._evidence_share = early_share * EVIDENCE_SHARE
        self._second_pass_share = 1 - early_share if self._mode.goes_on else 1.0
        self._heads = loaded.heads
        blocks, linears = loaded.bank.blocks, early_linears(self._stop)
        self._residual = SubspaceRouter(loaded.router, blocks[loaded.router_linear].vh)
        self._router = EvidenceRouter(
            self._mode, self._residual, {name: blocks[name].vh for name in linears}, loaded.calibration
        )

    @property
    def nbytes(self) -> int:
        return self._router.nbytes + self._residual.projectors.nbytes

    def decide(self, patches: Tensor, candidates: Tensor, clock: StageClock) -> Decided:
        with clock.stage("first_pass"):
            tokens, energies = self._passes.early(patches, self._stop, self._router.bases)
        with clock.stage("route"):
            early = self._router.early(energies, candidates)
            certain = early.leads >= self._mode.certain_lead
        decisions = [self._certain(early, row) for row in range(len(patches))]
        rest = (~certain).nonzero().flatten()
        if len(rest):
            for row, decision in zip(
                rest.tolist(),
                self._decide_late(tokens[rest], early.of(rest), candidates[rest], clock),
                strict=True,
            ):
                decisions[row] = decision
        return Decided(decisions, tokens)

    def _certain(self, early: Evidence, row: int) -> Decision:
        task = early.best(row)
        return Decision(
            ((task,),),
            {task: float(early.routing_coefficients[row, task])},
            likeness=early.likeness(row, [task]),
            passes=1 + self._evidence_share,
            goes_on=self._mode.goes_on,
            evidence=early,
            row=row,
        )

    def _decide_late(
        self, tokens: Tensor, early: Evidence, candidates: Tensor, clock: StageClock
    ) -> Sequence[Decision]:
        with clock.stage("first_pass"):
            features, embeddings = self._passes.late(tokens, self._stop)
        with clock.stage("route"):
            signs = torch.stack([head.signs(embeddings) for head in self._heads], dim=1)
            whole = self._router.whole(early, features, signs, candidates)
        return [self._looked_into(whole, row) for row in range(len(tokens))]

    def _looked_into(self, whole: Evidence, row: int) -> Decision:
        tasks = whole.to_look_at(row, self._mode)
        assert whole.residuals is not None
        return Decision(
            tuple((task,) for task in tasks),
            {task: float(whole.routing_coefficients[row, task]) for task in tasks},
            tuple(whole.residuals[row].tolist()),
            whole.likeness(row, tasks),
            {task: float(whole.kinds[row, -1, task]) for task in tasks},
            passes=1 + self._evidence_share + len(tasks) * self._second_pass_share,
            goes_on=self._mode.goes_on,
            evidence=whole,
            row=row,
        )
