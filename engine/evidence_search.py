"""The search for tasks by combined evidence: early for all samples, the whole where that is not enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mass_serve.backbone import Batch, Feature, Passes, PassResult, Probe
from mass_serve.backbone.device_turn import device_turn
from mass_serve.engine.class_vectors import ClassVectors
from mass_serve.engine.drawn_energies import inputs_to_measure_from, kept_energies, late_token
from mass_serve.engine.drawn_inputs import drawn_inputs
from mass_serve.engine.exits import measured_prices, recorded_prices
from mass_serve.engine.loaded_store import LoadedStore, early_linears
from mass_serve.engine.measured_tasks import MANY_TASKS, copied_tasks, likeliest, of_candidates
from mass_serve.engine.search_result import SearchResult
from mass_serve.engine.second_passes import SecondPass
from mass_serve.engine.stages import StageClock
from mass_serve.kernels.backend import backend_for
from mass_serve.router import (
    FARTHEST_RESUMED,
    MODES,
    DrawnEnergies,
    Evidence,
    EvidenceRouter,
    ModeName,
    Prior,
    TaskSubspaces,
    early_stop,
)

# Counted, not measured: what early evidence adds to a block, three products with D x D bases for each token,
# in multiply-accumulates of the block's twelve D x D products.
EVIDENCE_SHARE = 3 / 12
MLP_SHARE = 8 / 12  # of a block's products, those of its MLP


class EvidenceSearch:
    """Early evidence for all samples; the whole of it for those of whom that is not enough."""

    def __init__(self, loaded: LoadedStore, passes: Passes) -> None:
        self._passes = passes
        self._mode = MODES[loaded.mode]
        depth = loaded.architecture.depth
        self._stop = early_stop(depth)
        self._early_share = self._stop / depth
        self._evidence_share = self._early_share * EVIDENCE_SHARE / loaded.architecture.evidence_stride
        self._mlp_share = loaded.router.late_mlp_share
        sharing = max(0, depth - 1 - self._stop) / depth
        self._whole_share = 1 - sharing * MLP_SHARE * (1 - self._mlp_share)
        self._class_vectors = ClassVectors(loaded.routed_heads)
        adapters = loaded.adapters
        self._num_tasks = len(adapters)
        self.router = EvidenceRouter(
            TaskSubspaces(loaded.residual_blocks),
            loaded.subspaces(early_linears(loaded.architecture)),
            loaded.subspaces(loaded.architecture.late_linears(self._stop)),
            adapters,
            loaded.calibration,
        )
        self._restricts = loaded.narrows and len(adapters) > MANY_TASKS and loaded.calibration is None
        self._copies = backend_for(loaded.device) == "reference"
        feature = Feature(loaded.router.layer, loaded.router.token)
        is_early = feature.layer < self._stop
        self._early = Probe(self.router.early_bases, feature if is_early else None)
        self._late = Probe(self.router.late_bases, None if is_early else feature, late_token(loaded))
        self.drawn_energies = kept_energies(loaded) or self._measured_energies(loaded)
        self.router.measure_from(self.drawn_energies)
        prices = recorded_prices(loaded)
        if self._mode.resumes and (unpriced := prices.isnan().nonzero().flatten().tolist()):
            prices[unpriced] = measured_prices(loaded, passes, drawn_inputs(loaded, num_shapes=0), unpriced)
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
        prior: Prior | None,
        modes: Sequence[ModeName],
        clock: StageClock,
    ) -> list[SearchResult]:
        with clock.stage("first_pass"):
            begun = self.begin(inputs, candidates)
        if self._restricts or any(MODES[mode].early_exit_lead < math.inf for mode in modes):
            evidence = self._evidence(begun, candidates, prior, modes, clock)
        else:  # early evidence by itself would decide nothing
            evidence = self._whole_evidence(begun, candidates, prior, clock)
        # Taking tokens apart costs a view of the device for each sample.
        resumes = any(MODES[mode].resumes for mode in modes)
        entering = begun.entering if resumes else [None] * len(samples)
        of_samples = zip(samples, entering, evidence, modes, strict=True)
        return [self._result(*of_sample) for of_sample in of_samples]

    def _evidence(
        self,
        begun: PassResult,
        candidates: Tensor,
        prior: Prior | None,
        modes: Sequence[ModeName],
        clock: StageClock,
    ) -> list[Evidence]:
        """The evidence of samples of which some may need no more than the early one."""
        with clock.stage("route"):
            early = self.router.early(begun.energies, candidates, prior)
            if self._restricts:
                candidates = likeliest(early.scores, candidates)
                candidates = candidates if prior is None else prior.widened(candidates)
            unsure = (~_leaves_early(early, modes)).nonzero().flatten()
        evidence = early.samples()
        if len(unsure):
            rest = begun if len(unsure) == len(evidence) else begun.of_samples(unsure)
            of_rest = None if prior is None else prior.select(unsure)
            whole = self._whole_evidence(rest, candidates[unsure], of_rest, clock)
            for row, of_sample in zip(unsure.tolist(), whole, strict=True):
                evidence[row] = of_sample
        return evidence

    def warm_up(self, inputs: Batch) -> Mapping[int, Batch]:
        begun = self.begin(inputs)
        candidates = torch.ones(len(inputs), self._num_tasks, dtype=torch.bool)
        self.router.whole(begun.energies, *self.measured(begun, self.end(begun)), candidates)
        return {self._stop: begun.entering} if self.resuming else {}

    def _whole_evidence(
        self, begun: PassResult, candidates: Tensor, prior: Prior | None, clock: StageClock
    ) -> list[Evidence]:
        """Runs the rest of a first pass from where it was stopped, and judges by all that it tells."""
        with clock.stage("first_pass"):
            ended = self.end(begun, candidates)
        with clock.stage("route"):
            measured = self.measured(begun, ended)
            return self.router.whole(begun.energies, *measured, candidates, prior).samples()

    @torch.inference_mode()
    def _measured_energies(self, loaded: LoadedStore) -> DrawnEnergies:
        """What energies drawn inputs have on average."""
        with device_turn(loaded.device):
            begun = self.begin(inputs_to_measure_from(loaded))
            return self.router.drawn(begun.energies, self.measured(begun, self.end(begun))[0])

    def begin(self, inputs: Batch, candidates: Tensor | None = None) -> PassResult:
        """The first pass up to where early evidence is judged, for candidates [B, T]; None: for all tasks."""

        def run(probe: Probe) -> PassResult:
            return self._passes.first(inputs, stop=self._stop, probe=probe)

        return self._measuring(run, self._early, candidates)

    def end(self, begun: PassResult, candidates: Tensor | None = None) -> PassResult:
        """The rest of that pass."""

        def run(probe: Probe) -> PassResult:
            return self._passes.first(
                begun.entering, start=self._stop, probe=probe, mlp_share=self._mlp_share
            )

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

    def _result(self, sample: int, tokens: Tensor | None, evidence: Evidence, name: ModeName) -> SearchResult:
        """The result for one sample, whose first pass had tokens [L, D] when early evidence was judged.

        They are None in a mode that does not resume.
        """
        mode = MODES[name]
        tasks = evidence.second_pass_candidates(mode)
        resuming = self.resuming if mode.resumes else frozenset()
        whole = evidence.is_whole
        passes = (self._whole_share if whole else self._early_share) + self._evidence_share
        passes += sum(1 - self._early_share if task in resuming else 1 for task in tasks)
        coefficients, cosines = evidence.routing_coefficients.tolist(), evidence.kinds[-1].tolist()
        return SearchResult(
            tuple(self._second_pass(sample, task, tokens if task in resuming else None) for task in tasks),
            {task: coefficients[task] for task in tasks},
            evidence.residuals,
            evidence.likeness_to(tasks),
            {task: cosines[task] for task in tasks} if whole else {},
            passes=passes,
            evidence=evidence,
            part=None if evidence.gains.item() == -math.inf else int(evidence.parts),
        )

    def _second_pass(self, sample: int, task: int, tokens: Tensor | None) -> SecondPass:
        """The second pass with one task's weights, which resumes with the tokens if there are any."""
        if tokens is None:
            return SecondPass(sample, (task,))
        return SecondPass(sample, (task,), self._stop, tokens)


def _leaves_early(early: Evidence, modes: Sequence[ModeName]) -> Tensor:
    """Which samples [n] need no more than early evidence.

    In a pool that may be of several tasks, which a split that gains anything says, no sample leaves early
    unless its mode has no more evidence.
    """
    needed = torch.tensor([MODES[mode].early_exit_lead for mode in modes])
    # Written so that a NaN does not leave early: it is found not to be finite at the end. An infinite lead
    # does not either where a mode has no early exit, as among samples of such modes alone nobody asks.
    leads = (early.leads >= needed) & ~needed.isposinf()
    return leads & ((early.gains <= 0) | needed.isneginf())
