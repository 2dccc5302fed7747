"""Evidence for tasks beyond the paper's residual, summed as log likelihoods are. No data and no labels.

    score_t = share (explained_t + profile_t) - cosine log(1 - cosine_t)

with the weights of `router.weights`. What energies say is in `router.energies`: they are measured at many
linears, over the tokens of the first blocks (early energies) and on one token behind them (late energies).
cosine_t is the largest cosine between the first pass's embedding and the class vectors of task t's head.

Coefficients are the softmax of the scores. No kind is standardised over the tasks: a kind that cannot tell
them apart hardly differs from task to task and changes nothing, while standardised its noise would count as
much as what another kind knows. Shares count by their logarithm, which is free of how many directions the
subspaces have, a cosine by the logarithm of what it leaves to 1.

For tasks that are close the second pass has more to say: how clearly one class stands out, now with the
task's own weights (`router.head_scores`), as far as the heads told the tasks apart in the first pass, and how
sure the head is. Where a store was calibrated, what a discriminant makes of the same evidence counts too
(`router.discriminant`).

Samples that are said to be of one task are judged together: their scores are summed, as the evidence of
independent samples adds up, before anything is selected by them (`router.parts`). Logarithms of priors are
added to what was summed, once.
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.kernels.transfers import downloaded
from mass_serve.router.calibration import Calibration
from mass_serve.router.discriminant import Discriminant, Judgement
from mass_serve.router.energies import DrawnEnergies, EnergyEvidence
from mass_serve.router.head_scores import nearness
from mass_serve.router.modes import MAX_SECOND_PASSES, Mode
from mass_serve.router.parts import parts_of
from mass_serve.router.prior import Prior, with_log_priors
from mass_serve.router.projection import TaskSubspaces, explained_share
from mass_serve.router.selection import spread
from mass_serve.router.subspaces import LinearSubspaces
from mass_serve.router.weights import WEIGHTS, Weights

# After the early energies: the late ones' mean, the share of the router's feature explained, the cosine.
LATE_KINDS = 3


def evidence_kinds(early_linears: int) -> int:
    """K, the kinds of evidence there are, where early energies are measured at so many linears."""
    return early_linears + LATE_KINDS


@dataclass(frozen=True)
class Evidence:
    """Holds what is known of B samples and T tasks, on the CPU; -inf and 0 for tasks that are no candidates.

    `samples()` takes it apart: the evidence of one sample has the same fields without the leading B, and is
    what the methods after that one are for.
    """

    # [B, T] float32: sums of evidence, calibrated, over the sample's part of its pool, with its prior
    scores: Tensor
    routing_coefficients: Tensor  # [B, T] float32
    likeness: Tensor  # [B, T] float32, 0 to 1: to inputs of each task, by the energies (`router.energies`)
    typicality: (
        Tensor  # [B, T] float32, 0 to 1: of the evidence (`router.discriminant`); 1 without calibration
    )
    kinds: Tensor  # [B, K, T] float32: the evidence itself, shares and cosines
    # [B] float32: how far the part's best task is ahead of the next before calibration, which sharpens what
    # it does not always make surer; inf where there is no other.
    leads: Tensor
    energies: Tensor  # [B, K, T] float32, or [B, K, 2 T]: as they were measured (`router.energies`)
    own: Tensor  # [B, T] float32: the calibrated evidence of the sample alone, without its prior
    parts: Tensor  # [B] int64: of its pool, the part that the sample is judged with (`router.parts`)
    gains: Tensor  # [B] float32: what the best split of its pool gains; -inf of a sample by itself
    residuals: Tensor | None = None  # [B, T] float32: the paper's; None in early evidence
    # [B, 2] float32: what the last two head scores of a second pass count; how clearly a class stands out the
    # more, the more the heads differed over the tasks in the first pass. None in early evidence
    head_units: Tensor | None = None

    def samples(self) -> list[Evidence]:
        """The evidence of every sample by itself."""
        residuals = [None] * len(self.scores) if self.residuals is None else self.residuals.unbind()
        units = [None] * len(self.scores) if self.head_units is None else self.head_units.unbind()
        everywhere = (
            self.scores,
            self.routing_coefficients,
            self.likeness,
            self.typicality,
            self.kinds,
            self.leads,
            self.energies,
            self.own,
            self.parts,
            self.gains,
        )
        # A tensor is taken apart at once: an index for each sample and field costs more than a small pass.
        rows = zip(*(tensor.unbind() for tensor in everywhere), residuals, units, strict=True)
        return [Evidence(*row) for row in rows]

    @property
    def is_whole(self) -> bool:
        """Tells whether the first pass went on to the end; early evidence knows its first third alone."""
        return self.residuals is not None

    @property
    def best(self) -> int:
        """The task with the most evidence."""
        return int(self.scores.argmax())

    # Of one sample there are so few numbers that a tensor operation takes longer than all of them in Python.

    def likeness_to(self, tasks: Iterable[int]) -> dict[int, float]:
        """How much the sample is like the images of each task, 0 to 1: by energies, and in a typical way."""
        likeness, typicality = self.likeness.tolist(), self.typicality.tolist()
        return {task: _float32(likeness[task] * typicality[task]) for task in tasks}

    def second_pass_candidates(self, mode: Mode) -> tuple[int, ...]:
        """The tasks whose weights this sample gets a second pass with, ascending."""
        scores: list[float] = self.scores.tolist()
        ranked = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:MAX_SECOND_PASSES]
        least = _float32(scores[ranked[0]] - mode.second_pass_margin)
        # Nothing is near a NaN; such a sample has a second pass too, in which it is found to have no answer.
        if not mode.second_pass_margin or any(map(math.isnan, scores)):
            return (self.best,)
        return tuple(sorted(task for task in ranked if scores[task] >= least))

    def second_pass_scores(self, head_scores: Mapping[int, Sequence[float]]) -> list[float]:
        """What second passes add to the scores of the n tasks that they were run for.

        `head_scores` holds the three scores that each of n tasks' heads gave to the embedding of its second
        pass. Only whole evidence can be asked.
        """
        assert self.head_units is not None
        of_clearness, of_confidence = self.head_units.tolist()
        of_tasks = head_scores.values()
        return [clearness * of_clearness + sure * of_confidence for _, clearness, sure in of_tasks]


def after_second_passes(
    part: Sequence[Evidence], head_scores: Sequence[Mapping[int, Sequence[float]]]
) -> dict[int, float]:
    """The routing coefficients of several tasks, once each sample of a part had a second pass with each.

    `head_scores` are those of each sample (`Evidence.second_pass_scores`), all of the same tasks, which share
    what their coefficients were together: `softmax(scores + sum over the part of what was added)`.
    """
    tasks = list(head_scores[0])
    before, coefficients = part[0].scores.tolist(), part[0].routing_coefficients.tolist()
    added = (evidence.second_pass_scores(own) for evidence, own in zip(part, head_scores, strict=True))
    scores = [sum(of_task, before[task]) for task, *of_task in zip(tasks, *added, strict=True)]
    together, largest = sum(coefficients[task] for task in tasks), max(scores)
    shares = [math.exp(score - largest) for score in scores]
    return {task: together * share / sum(shares) for task, share in zip(tasks, shares, strict=True)}


def _float32(number: float) -> float:
    """The float32 next to a number: what a product or difference of two of them is there."""
    return ctypes.c_float(number).value


class EvidenceRouter:
    """Combines evidence. Thread-safe: it keeps nothing of the samples."""

    def __init__(
        self,
        subspaces: TaskSubspaces,
        early: Mapping[str, LinearSubspaces],
        late: Mapping[str, LinearSubspaces],
        adapters: Sequence[bool],
        calibration: Calibration | None = None,
    ) -> None:
        """`subspaces` are those of the linear that the router's feature enters.

        `early` and `late` are those of the linears where early and late energies are measured, and `adapters`
        [T] tells which tasks are.
        """
        self.early_bases = {linear: one.directions for linear, one in early.items()}
        self.late_bases = {linear: one.directions for linear, one in late.items()}
        self._subspaces, self._tasks, self._num_early = subspaces, len(adapters), len(early)
        of_adapters = torch.tensor(adapters)
        self._early = EnergyEvidence(list(early.values()), of_adapters)
        self._both = EnergyEvidence([*early.values(), *late.values()], of_adapters)
        self._weights = WEIGHTS
        self._early_discriminant: Discriminant | None = None
        self._whole_discriminant: Discriminant | None = None
        if calibration is not None:
            self._whole_discriminant = calibration.discriminant(evidence_kinds(len(early)))
            self._early_discriminant = calibration.discriminant(len(early))

    @property
    def nbytes(self) -> int:
        """The memory of the bases and the subspaces."""
        bases = (*self.early_bases.values(), *self.late_bases.values())
        return self._subspaces.nbytes + sum(basis.nbytes for basis in bases)

    def weighing(self, weights: Weights) -> EvidenceRouter:
        """Returns the same router with other weights, for who chooses them."""
        other = copy.copy(self)
        other._weights = weights
        return other

    def early(self, energies: Tensor, candidates: Tensor, prior: Prior | None = None) -> Evidence:
        """Judges samples by early energies [B, K, T] alone, among `candidates` [B, T] bool on the CPU."""
        energies = energies.cpu()
        kinds = energies[:, :, : self._tasks]
        scores = self._early.scores(energies, candidates, self._weights)
        judged = _judged(kinds, candidates, self._early_discriminant)
        own = _calibrated(scores, candidates, judged)
        parts = parts_of(own, prior)
        summed = with_log_priors(parts.summed(own), prior)
        # NaN: without early evidence no task leads, and every image gets the whole.
        leads = _leads(with_log_priors(parts.summed(scores), prior), summed)
        return Evidence(
            summed,
            summed.softmax(1),
            self._early.likeness(energies),
            judged.typicality,
            kinds,
            leads if self._early.tells else torch.full_like(leads, torch.nan),
            energies,
            own,
            parts.numbers,
            parts.gains,
        )

    def whole(
        self,
        early: Tensor,
        energies: Tensor,
        features: Tensor,
        cosines: Tensor,
        candidates: Tensor,
        prior: Prior | None = None,
    ) -> Evidence:
        """Judges samples by all that a first pass tells, among `candidates` [B, T] bool on the CPU.

        That is early and late energies [B, K, T], the router's features [B, D], and the largest cosine
        [B, T] of each embedding to a class vector of each head.
        """
        residuals = self._subspaces.residuals(features)
        early, late, residuals, cosines, features = downloaded(early, energies, residuals, cosines, features)
        late_share = (late if late.shape[1] else early)[:, :, : self._tasks].mean(1)
        further = (late_share, explained_share(features, residuals), cosines)
        kinds = torch.cat([early[:, :, : self._tasks], torch.stack(further, dim=1)], dim=1)
        near, both = nearness(cosines), torch.cat([early, late], dim=1)
        scores = self._both.scores(both, candidates, self._weights) + self._weights.cosine * near
        judged = _judged(kinds, candidates, self._whole_discriminant)
        own = _calibrated(scores, candidates, judged)
        parts = parts_of(own, prior)
        summed = with_log_priors(parts.summed(own), prior)
        return Evidence(
            summed,
            summed.softmax(1),
            self._both.likeness(both),
            judged.typicality,
            kinds,
            _leads(with_log_priors(parts.summed(scores), prior), summed),
            both,
            own,
            parts.numbers,
            parts.gains,
            residuals,
            self._head_units(near, candidates),
        )

    def _head_units(self, near: Tensor, candidates: Tensor) -> Tensor:
        """The units [B, 2] of head scores of second passes, by the nearness [B, T] of the first pass's."""
        spreads = spread(near, candidates)
        confidence = torch.full_like(spreads, self._weights.confidence)
        return torch.stack([self._weights.second_pass * spreads, confidence], dim=1)

    def drawn(self, early: Tensor, late: Tensor) -> DrawnEnergies:
        """What drawn inputs with these energies [N, K, T], or [N, K, 2 T], have; early linears come first."""
        return self._both.drawn(torch.cat([early, late], dim=1).cpu())

    def measure_from(self, drawn: DrawnEnergies) -> None:
        """Takes what drawn inputs have for what others are measured from."""
        self._early.measure_from(drawn.at(slice(self._num_early)))
        self._both.measure_from(drawn)


def _judged(kinds: Tensor, candidates: Tensor, discriminant: Discriminant | None) -> Judgement:
    """Returns what a calibration says, or nothing."""
    if discriminant is not None:
        return discriminant.judge(kinds, candidates)
    nothing = torch.zeros(candidates.shape)
    return Judgement(nothing, nothing, nothing + 1)


def _calibrated(scores: Tensor, candidates: Tensor, judged: Judgement) -> Tensor:
    """The scores [B, T] with what the judgement adds to them, -inf for tasks that are no candidates."""
    return (scores + judged.added).masked_fill(~candidates, -torch.inf)


def _leads(scores: Tensor, calibrated: Tensor) -> Tensor:
    """How far each row's best task by `calibrated` is ahead of all others in `scores`, [B]."""
    best = calibrated.argmax(1, keepdim=True)
    others = scores.masked_fill(calibrated.isneginf(), -torch.inf).scatter(1, best, -torch.inf).amax(1)
    return scores.gather(1, best).squeeze(1) - others
