"""The search for tasks, from inputs to planned second passes: the first pass and the router, in two ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mass_serve.backbone import Batch, Feature, Passes, PassResult, Probe
from mass_serve.engine.class_vectors import ClassVectors
from mass_serve.engine.drawn_inputs import NOISE_INPUTS, drawn_inputs
from mass_serve.engine.exits import measured_prices, recorded_prices
from mass_serve.engine.heads import HeadResult
from mass_serve.engine.loading import LoadedStore, early_linears
from mass_serve.engine.measured_tasks import MANY_TASKS, copied_tasks, likeliest, of_candidates
from mass_serve.engine.options import EmbeddingPooling
from mass_serve.engine.second_passes import SecondPass
from mass_serve.engine.stages import StageClock
from mass_serve.kernels.backend import backend_for
from mass_serve.router import (
    FARTHEST_RESUMED,
    MODES,
    PAPER,
    Evidence,
    EvidenceRouter,
    ModeName,
    SubspaceRouter,
    TaskSubspaces,
    after_second_passes,
    early_stop,
    explained_share,
    mode_named,
)

# Counted, not measured, in multiply-accumulates of a block's twelve D x D products for every token.
# Self-attention's share of them: four of the twelve.
ATTENTION_SHARE = 1 / 3
# What measuring early evidence adds to a block: three products with D x D bases for each token.
EVIDENCE_SHARE = 3 / 12
FEW = 16  # drawn inputs, half of them noise


@dataclass(frozen=True)
class SearchResult:
    """The outcome of the search for one sample's tasks: second passes to run, and what is known so far."""

    second_passes: tuple[SecondPass, ...]
    coefficients: Mapping[int, float]  # of every task in a second pass
    residuals: Tensor | None = None  # [T] float32, of every task; None where they were not needed
    # How much the sample is like the images of each task that it is tried with, 0 to 1; empty where a task
    # was named.
    likeness: Mapping[int, float] = field(default_factory=dict)
    # The cosine of the first pass's embedding and each such task's nearest class vector; empty where there
    # was no such embedding.
    first_cosines: Mapping[int, float] = field(default_factory=dict)
    is_fallback: bool = False  # no task was above the threshold: it got the likeliest one
    passes: float = 1.0  # through the encoder, the first and the second together
    evidence: Evidence | None = None  # of this sample; None of the paper's router, and where a task was named

    @classmethod
    def named(cls, sample: int, task: int, *, each_token: bool = False) -> SearchResult:
        """The result where the caller left one task to choose from."""
        return cls((SecondPass(sample, (task,), each_token=each_token),), {task: 1.0})

    @classmethod
    def embedded(cls, sample: int, task: int | None, pooling: EmbeddingPooling) -> SearchResult:
        """The result where an embedding is wanted: by a task's encoder or, with None, the pretrained one."""
        expert_set = () if task is None else (task,)
        return cls((SecondPass(sample, expert_set, each_token=pooling == "mean"),), {})

    @property
    def expert_set(self) -> tuple[int, ...]:
        """Every task that the sample is tried with, ascending."""
        return tuple(sorted(self.coefficients))


def final_coefficients(
    pool: Sequence[SearchResult], results: Sequence[Sequence[HeadResult]]
) -> Mapping[int, float]:
    """The coefficients of samples that are of one task, given what the heads say of their second passes."""
    if len(pool[0].second_passes) == 1:
        return pool[0].coefficients
    evidence = [one.evidence for one in pool if one.evidence is not None]
    return after_second_passes(evidence, [{one.task: one.head_scores for one in own} for own in results])


class TaskSearch(Protocol):
    """A first pass and a router of the T routed tasks."""

    @property
    def nbytes(self) -> int:
        """The memory of what it keeps beside the store's weights."""

    def search(
        self,
        samples: Sequence[int],
        inputs: Batch,
        candidates: Tensor,
        pools: Tensor | None,
        modes: Sequence[ModeName],
        clock: StageClock,
    ) -> list[SearchResult]:
        """A result for each of n `samples`, which are their rows in the batch.

        `inputs` are the patches [n, L - 1, 3 p p] or words of the samples, and the mask `candidates` [n, T]
        (bool, CPU) says which tasks each may have. Samples of one pool, as `pools` [n] numbers them, get the
        same tasks. `modes` are those of the samples. Times the stages `first_pass` and `route`.
        """


def task_search(loaded: LoadedStore, passes: Passes) -> TaskSearch:
    """Builds the task search for the store's mode. Raises ValueError for a mode that there is not."""
    mode = mode_named(loaded.mode)  # a caller may have replaced the mode that `load_store` made sure of
    if not loaded.routed:
        return NoSearch()
    return PaperSearch(loaded, passes) if mode == PAPER else EvidenceSearch(loaded, passes)


class NoSearch:
    """The search of a store whose tasks all classify tokens: there are none to search among."""

    nbytes = 0

    def search(
        self,
        samples: Sequence[int],
        inputs: Batch,  # noqa: ARG002 - as of every search
        candidates: Tensor,  # noqa: ARG002
        pools: Tensor | None,  # noqa: ARG002
        modes: Sequence[ModeName],  # noqa: ARG002
        clock: StageClock,  # noqa: ARG002
    ) -> list[SearchResult]:
        raise ValueError(f"{len(samples)} inputs are to be routed, and no task of the store is")


class PaperSearch:
    """MASS as published (arXiv:2504.05342): one feature, residuals, an expert set."""

    def __init__(self, loaded: LoadedStore, passes: Passes) -> None:
        self._passes = passes
        router = loaded.router
        self._router = SubspaceRouter(
            loaded.residual_blocks,
            temperature=router.temperature,
            threshold=router.threshold,
            top_k=router.top_k,
        )
        self._probe = Probe(feature=Feature(router.layer, router.token))
        self._cost = (router.layer + ATTENTION_SHARE) / loaded.architecture.depth + 1

    @property
    def nbytes(self) -> int:
        return self._router.nbytes

    def search(
        self,
        samples: Sequence[int],
        inputs: Batch,
        candidates: Tensor,
        pools: Tensor | None,
        modes: Sequence[ModeName],  # noqa: ARG002 - there is none but the paper's
        clock: StageClock,
    ) -> list[SearchResult]:
        with clock.stage("first_pass"):
            features = self._passes.first(inputs, stop="feature", probe=self._probe).feature
        with clock.stage("route"):
            residuals = self._router.residuals(features)
            coefficients = self._router.coefficients(residuals, candidates, pools)
            expert_sets = self._router.expert_sets(coefficients)
            explained = explained_share(features, residuals)
        of_samples = zip(samples, expert_sets, coefficients, residuals, explained, strict=True)
        return [self._result(*of_sample) for of_sample in of_samples]

    def _result(
        self,
        sample: int,
        expert_set: tuple[int, ...],
        coefficients: Tensor,
        residuals: Tensor,
        explained: Tensor,
    ) -> SearchResult:
        """The result for one sample; coefficients, residuals and explained shares are [T]."""
        own = {task: float(coefficients[task]) for task in expert_set}
        return SearchResult(
            (SecondPass(sample, expert_set),),
            own,
            residuals,
            {task: float(explained[task]) for task in expert_set},
            is_fallback=max(own.values()) <= self._router.threshold,
            passes=self._cost,
        )


class EvidenceSearch:
    """Early evidence for all samples; the whole of it for those of whom that is not enough."""

    def __init__(self, loaded: LoadedStore, passes: Passes) -> None:
        self._passes = passes
        self._mode = MODES[loaded.mode]
        self._stop = early_stop(loaded.architecture.depth)
        self._early_share = self._stop / loaded.architecture.depth
        self._evidence_share = self._early_share * EVIDENCE_SHARE / loaded.architecture.evidence_stride
        self._class_vectors = ClassVectors(loaded.routed_heads)
        adapters = loaded.adapters
        self.router = EvidenceRouter(
            TaskSubspaces(loaded.residual_blocks),
            loaded.subspaces(early_linears(loaded.architecture)),
            loaded.subspaces(loaded.architecture.late_linears(self._stop)),
            adapters,
            loaded.calibration,
        )
        self._restricts = len(adapters) > MANY_TASKS and loaded.calibration is None
        self._copies = backend_for(loaded.device) == "reference"
        feature = Feature(loaded.router.layer, loaded.router.token)
        is_early = feature.layer < self._stop
        self._early = Probe(self.router.early_bases, feature if is_early else None)
        # The class token has much of its energy along few directions, whatever the input: no profile.
        token = "mean" if any(adapters) else loaded.router.late_token or feature.token
        self._late = Probe(self.router.late_bases, None if is_early else feature, token)
        drawn = drawn_inputs(loaded)
        # What the tasks explain of drawn inputs a few tell, their profiles all.
        self._set_null(drawn if any(adapters) else drawn[NOISE_INPUTS - FEW // 2 : NOISE_INPUTS + FEW // 2])
        prices = recorded_prices(loaded)
        if self._mode.resumes and (unpriced := prices.isnan().nonzero().flatten().tolist()):
            prices[unpriced] = measured_prices(loaded, passes, drawn, unpriced)
        near = (prices <= FARTHEST_RESUMED).nonzero().flatten().tolist()
        # The tasks whose second passes resume.
        self.resuming: frozenset[int] = frozenset(near) if self._mode.resumes else frozenset()

    @property
    def nbytes(self) -> int:
        return self.router.nbytes + self._class_vectors.nbytes

    def search(
        self,
        samples: Sequence[int],
        inputs: Batch,
        candidates: Tensor,
        pools: Tensor | None,
        modes: Sequence[ModeName],
        clock: StageClock,
    ) -> list[SearchResult]:
        with clock.stage("first_pass"):
            begun = self.begin(inputs, candidates)
        with clock.stage("route"):
            early = self.router.early(begun.energies, candidates, pools)
            if self._restricts:
                candidates = likeliest(early.scores, candidates)
            sure = torch.tensor([MODES[mode].early_exit_lead for mode in modes])
            # Written so that a NaN does not leave early: it is found not to be finite at the end.
            unsure = (~(early.leads >= sure)).nonzero().flatten()
        evidence = early.samples()
        if len(unsure):
            rest = begun.of_samples(unsure)
            rest_pools = None if pools is None else pools[unsure]
            whole = self._whole_evidence(rest, early.select(unsure), candidates[unsure], rest_pools, clock)
            for row, of_sample in zip(unsure.tolist(), whole.samples(), strict=True):
                evidence[row] = of_sample
        of_samples = zip(samples, begun.entering, evidence, modes, strict=True)
        return [self._result(*of_sample) for of_sample in of_samples]

    def _whole_evidence(
        self,
        begun: PassResult,
        early: Evidence,
        candidates: Tensor,
        pools: Tensor | None,
        clock: StageClock,
    ) -> Evidence:
        """Runs the rest of a first pass from where it was stopped, and adds what it tells."""
        with clock.stage("first_pass"):
            ended = self.end(begun, candidates)
        with clock.stage("route"):
            return self.router.whole(early, *self.measured(begun, ended), candidates, pools)

    @torch.inference_mode()
    def _set_null(self, drawn: Batch) -> None:
        """Measures the energies of drawn inputs."""
        begun = self.begin(drawn)
        self.router.set_null(begun.energies, self.measured(begun, self.end(begun))[0])

    def begin(self, inputs: Batch, candidates: Tensor | None = None) -> PassResult:
        """The first pass up to where early evidence is judged, for candidates [B, T]; None: for all tasks."""

        def run(probe: Probe) -> PassResult:
            return self._passes.first(inputs, stop=self._stop, probe=probe)

        return self._measuring(run, self._early, candidates)

    def end(self, begun: PassResult, candidates: Tensor | None = None) -> PassResult:
        """The rest of that pass."""

        def run(probe: Probe) -> PassResult:
            return self._passes.first(begun.entering, start=self._stop, probe=probe)

        return self._measuring(run, self._late, candidates)

    def _measuring(
        self, run: Callable[[Probe], PassResult], probe: Probe, candidates: Tensor | None
    ) -> PassResult:
        """A part of a pass that measures what `engine.measured_tasks` says of the probe."""
        if candidates is None or not (self._restricts and probe.bases):
            return run(probe)
        tasks = copied_tasks(candidates) if self._copies else None
        return of_candidates(run(probe if tasks is None else probe.of_tasks(tasks)), candidates, tasks)

    def measured(self, begun: PassResult, ended: PassResult) -> tuple[Tensor, Tensor, Tensor]:
        """What both parts of a pass tell the router beside early energies.

        That is late energies [B, K, T], the router's features [B, D] and the largest cosines [B, T].
        """
        energies = ended.energies if self._late.bases else begun.energies[:, :0]  # of no later block
        feature = (ended if self._late.feature else begun).feature
        return energies, feature, self._class_vectors.largest_cosines(ended.embedding)

    def _result(self, sample: int, tokens: Tensor, evidence: Evidence, name: ModeName) -> SearchResult:
        """The result for one sample, whose first pass had tokens [L, D] when early evidence was judged."""
        mode = MODES[name]
        tasks = evidence.second_pass_candidates(mode)
        resuming = self.resuming if mode.resumes else frozenset()
        whole = evidence.is_whole
        passes = (1 if whole else self._early_share) + self._evidence_share
        passes += sum(1 - self._early_share if task in resuming else 1 for task in tasks)
        return SearchResult(
            tuple(self._second_pass(sample, task, tokens if task in resuming else None) for task in tasks),
            {task: float(evidence.routing_coefficients[task]) for task in tasks},
            evidence.residuals,
            evidence.likeness_to(tasks),
            {task: float(evidence.kinds[-1, task]) for task in tasks} if whole else {},
            passes=passes,
            evidence=evidence,
        )

    def _second_pass(self, sample: int, task: int, tokens: Tensor | None) -> SecondPass:
        """The second pass with one task's weights, which resumes with the tokens if there are any."""
        if tokens is None:
            return SecondPass(sample, (task,))
        return SecondPass(sample, (task,), self._stop, tokens)
