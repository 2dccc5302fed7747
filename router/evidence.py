"""Evidence for tasks beyond the paper's residual, made comparable and summed. No data and no labels.

Three kinds of evidence err on different images (docs/method.md):

- early energy: how much of the first blocks' activations lies in each task's subspaces, over all tokens;
- residual: the paper's, of one feature late in the pass;
- head: the largest cosine between the first pass's embedding and the class vectors of each task's head.

A share of energy and a cosine count by the logarithm of what they leave to 1: the nearer they are to it, the
more a further step says. Each kind is standardised over an image's candidate tasks and all weigh the same.
For tasks that are close the second pass has more to say: the same cosine once more, now with the task's own
weights, and how clearly one class stands out from the others, measured in two ways (`router.head_scores`).
Where a store was calibrated on unlabelled images, what a discriminant makes of the same evidence counts too
(`router.discriminant`).

Samples that are known to be of one task are judged together: their scores are summed over the pool
(`router.pooled`), as the evidence of independent samples adds up, before anything is selected by them.

Subspaces are compared by as many leading directions as every task has, and only where they can be
(`router.comparable`), which is nowhere in a store that has an adapter: there the heads decide. Heads that
are stacks, as those of text classifiers, are not compared where subspaces can be: what enters their last
layer was made for one head's own classes, and lies near one of every head's (`benchmarks.text_routing`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.router.calibration import Calibration
from mass_serve.router.discriminant import Discriminant, Judgement
from mass_serve.router.head_scores import comparable_scores, nearness
from mass_serve.router.modes import MAX_SECOND_PASSES, Mode
from mass_serve.router.projection import TaskSubspaces, explained_share, orthonormal_rows
from mass_serve.router.selection import STD_EPSILON, pooled, spread, standardised

# The temperatures and the weight below were chosen by `mass-serve eval STORE DATA --mode fast --mode exact`.
# DATA was some of DIR/evaluation of the suites that `python -m examples.suites NAME --out DIR` makes
# (`near_duplicates`, `weak_demo`, `twenty_tasks_demo`), and for the demo its pictures 3000 to 3011 of every
# label, as `examples.demo_suite.gallery.write_gallery` draws them.

# Softmax temperatures of the sum of one and of all three kinds of evidence. At these the coefficients are
# about as often right as they say (`task_ece`).
EARLY_TEMPERATURE = 1 / 3
WHOLE_TEMPERATURE = 2 / 3
# What each of the three head scores of a second pass counts beside the kinds of evidence before it.
SECOND_PASS_WEIGHT = 0.5
# Below this, tasks do not differ in sharpness: heads of two classes are all equally sharp, but for rounding.
LEAST_SHARPNESS_SPREAD = 0.1
LATE_KINDS = 2  # after the early energies: the share of the router's feature explained, the largest cosine


def evidence_kinds(early_linears: int) -> int:
    """K, the kinds of evidence there are, where early energies are measured at so many linears."""
    return early_linears + LATE_KINDS


@dataclass(frozen=True)
class Evidence:
    """Holds what is known of B samples and T tasks, on the CPU; -inf and 0 for tasks that are no candidates.

    `samples()` takes it apart: the evidence of one sample has the same fields without the leading B, and is
    what the methods after that one are for.
    """

    scores: Tensor  # [B, T] float32: sums of standardised evidence, calibrated, over the sample's pool
    routing_coefficients: Tensor  # [B, T] float32
    explained: Tensor  # [B, T] float32: the share of the sample's activations in each task's subspaces
    typicality: (
        Tensor  # [B, T] float32, 0 to 1: of the evidence (`router.discriminant`); 1 without calibration
    )
    kinds: Tensor  # [B, K, T] float32: the evidence itself, before anything was standardised
    # [B] float32: how far the pool's best task is ahead of the next before calibration, which sharpens what
    # it does not always make surer; inf where there is no other.
    leads: Tensor
    residuals: Tensor | None = None  # [B, T] float32: the paper's; None in early evidence
    # [B, 3] float32: of the first pass's head scores, the units of what a second pass adds; None in early
    # evidence, and where heads do not count
    score_spreads: Tensor | None = None

    def select(self, rows: Tensor | int) -> Evidence:
        """The evidence of the samples that `rows` [n] int64 numbers, or of the one sample of that number."""
        return Evidence(
            self.scores[rows],
            self.routing_coefficients[rows],
            self.explained[rows],
            self.typicality[rows],
            self.kinds[rows],
            self.leads[rows],
            None if self.residuals is None else self.residuals[rows],
            None if self.score_spreads is None else self.score_spreads[rows],
        )

    def samples(self) -> list[Evidence]:
        """The evidence of every sample by itself."""
        return [self.select(row) for row in range(len(self.scores))]

    @property
    def is_whole(self) -> bool:
        """Tells whether the first pass went on to the end; early evidence knows its first third alone."""
        return self.residuals is not None

    @property
    def best(self) -> int:
        """The task with the most evidence."""
        return int(self.scores.argmax())

    def likeness(self, tasks: Iterable[int]) -> dict[int, float]:
        """How much the sample is like the images of each task, 0 to 1: explained, and in a typical way."""
        return {task: float(self.explained[task] * self.typicality[task]) for task in tasks}

    def second_pass_candidates(self, mode: Mode) -> tuple[int, ...]:
        """The tasks whose weights this sample gets a second pass with, ascending."""
        heads_count = not self.is_whole or self.score_spreads is not None
        if not (mode.second_pass_margin and heads_count):  # else a second pass has nothing to say
            return (self.best,)
        ranked = self.scores.sort(descending=True, stable=True)
        near = ranked.values >= ranked.values[0] - mode.second_pass_margin
        chosen = ranked.indices[:MAX_SECOND_PASSES][near[:MAX_SECOND_PASSES]].tolist()
        # Nothing is near a NaN; such a sample has a second pass too, in which it is found to have no answer.
        return tuple(sorted(chosen)) or (self.best,)

    def second_pass_scores(self, head_scores: Mapping[int, Tensor]) -> Tensor:
        """What second passes add to the scores of the tasks that they were run for, [n].

        `head_scores` holds the scores [3] that each of n tasks' heads gave to the embedding of its second
        pass. Only whole evidence can be asked.
        """
        assert self.score_spreads is not None
        own = torch.stack(list(head_scores.values()))
        least = torch.tensor([0.0, LEAST_SHARPNESS_SPREAD, 0.0])
        added = comparable_scores(own) / (self.score_spreads.maximum(least) + STD_EPSILON)
        return SECOND_PASS_WEIGHT * added.sum(1)


def after_second_passes(
    pool: Sequence[Evidence], head_scores: Sequence[Mapping[int, Tensor]]
) -> dict[int, float]:
    """The routing coefficients of several tasks, once each sample of a pool had a second pass with each.

    `head_scores` are those of each sample (`Evidence.second_pass_scores`), all of the same tasks, which share
    what their coefficients were together: `softmax((scores + sum over the pool of what was added) / T)`.
    """
    tasks, first = list(head_scores[0]), pool[0]
    scores = first.scores[tasks]
    for evidence, own in zip(pool, head_scores, strict=True):
        scores = scores + evidence.second_pass_scores(own)
    together = float(first.routing_coefficients[tasks].sum())
    shares: list[float] = (scores / WHOLE_TEMPERATURE).softmax(0).tolist()
    return {task: together * share for task, share in zip(tasks, shares, strict=True)}


class EvidenceRouter:
    """Combines evidence. Thread-safe: it keeps nothing of the samples."""

    def __init__(
        self,
        mode: Mode,
        subspaces: TaskSubspaces,
        early_blocks: Mapping[str, Tensor],
        calibration: Calibration | None = None,
        *,
        incomparable: Collection[str] = (),
        residuals_comparable: bool = True,
        heads_comparable: bool = True,
    ) -> None:
        """`subspaces` are those of the linear that the router's feature enters.

        `early_blocks` holds vh [T, R, D] of every task by linear, of those where early energies are measured.
        Those at the `incomparable` linears among them count in a calibration alone, and so do residuals that
        are not comparable. Heads that are not count where nothing else can be compared.
        """
        self.bases = {linear: orthonormal_rows(blocks) for linear, blocks in early_blocks.items()}
        self._subspaces = subspaces
        self._comparable = [place for place, linear in enumerate(early_blocks) if linear not in incomparable]
        self._some_incomparable = len(self._comparable) < len(early_blocks)
        self._residuals_comparable = residuals_comparable
        self._heads_count = heads_comparable or not (self._comparable or residuals_comparable)
        self._early_discriminant: Discriminant | None = None
        self._whole_discriminant: Discriminant | None = None
        if calibration is not None:
            self._whole_discriminant = calibration.discriminant(evidence_kinds(len(early_blocks)))
            # Where every image gets the whole evidence, nothing comes of the early one by itself.
            if mode.early_exit_lead < math.inf:
                self._early_discriminant = calibration.discriminant(len(early_blocks))

    @property
    def nbytes(self) -> int:
        """The memory of the bases and the subspaces."""
        return self._subspaces.nbytes + sum(basis.nbytes for basis in self.bases.values())

    def early(self, energies: Tensor, candidates: Tensor, pools: Tensor | None = None) -> Evidence:
        """Judges samples by early energies [B, K, T] alone, among `candidates` [B, T] bool on the CPU.

        Samples of one pool, as `pools` [B] numbers them, are judged together.
        """
        kinds = energies.cpu()
        if self._comparable:
            explained = (kinds[:, self._comparable] if self._some_incomparable else kinds).mean(1)
            scores = standardised(nearness(explained), candidates)
        else:
            explained, scores = torch.ones(candidates.shape), torch.zeros(candidates.shape)
        judged = _judged(kinds, candidates, self._early_discriminant)
        calibrated = pooled(_calibrated(scores, candidates, judged, EARLY_TEMPERATURE), pools)
        coefficients = (calibrated / EARLY_TEMPERATURE).softmax(1)
        # NaN: without early evidence no task leads, and every image gets the whole.
        leads = (
            _leads(pooled(scores, pools), calibrated)
            if self._comparable
            else torch.full((len(kinds),), torch.nan)
        )
        return Evidence(calibrated, coefficients, explained, judged.typicality, kinds, leads)

    def whole(
        self,
        early: Evidence,
        features: Tensor,
        head_scores: Tensor,
        candidates: Tensor,
        pools: Tensor | None = None,
    ) -> Evidence:
        """Adds the router's features [B, D] and the head scores [B, T, 3] of the first pass's embeddings."""
        residuals, head_scores = self._subspaces.residuals(features), head_scores.cpu()
        late = explained_share(features, residuals)
        kinds = torch.cat([early.kinds, late.unsqueeze(1), head_scores[:, :, 0].unsqueeze(1)], dim=1)
        comparable = comparable_scores(head_scores)
        pieces = []
        if self._comparable:
            pieces.append(nearness(early.explained))
        if self._residuals_comparable:
            pieces.append(-residuals)
        if self._heads_count:
            pieces.append(comparable[:, :, 0])
        scores = torch.stack([standardised(piece, candidates) for piece in pieces]).sum(0)
        judged = _judged(kinds, candidates, self._whole_discriminant)
        calibrated = pooled(_calibrated(scores, candidates, judged, WHOLE_TEMPERATURE), pools)
        return Evidence(
            calibrated,
            (calibrated / WHOLE_TEMPERATURE).softmax(1),
            self._explained(early.explained, late),
            judged.typicality,
            kinds,
            _leads(pooled(scores, pools), calibrated),
            residuals,
            torch.stack([spread(score, candidates) for score in comparable.unbind(2)], dim=1)
            if self._heads_count
            else None,
        )

    def _explained(self, early: Tensor, late: Tensor) -> Tensor:
        """The geometric mean of the shares that are comparable: of the same size as one of them alone."""
        if not self._residuals_comparable:
            return early
        return (early * late).sqrt() if self._comparable else late


def _judged(kinds: Tensor, candidates: Tensor, discriminant: Discriminant | None) -> Judgement:
    """Returns what a calibration says, or nothing."""
    if discriminant is not None:
        return discriminant.judge(kinds, candidates)
    nothing = torch.zeros(candidates.shape)
    return Judgement(nothing, nothing + 1)


def _calibrated(scores: Tensor, candidates: Tensor, judged: Judgement, temperature: float) -> Tensor:
    """The scores [B, T] with what the judgement adds to them, -inf for tasks that are no candidates."""
    # Times the temperature, so that the coefficients are multiplied by a power of the probabilities.
    return (scores + temperature * judged.log_probabilities).masked_fill(~candidates, -torch.inf)


def _leads(scores: Tensor, calibrated: Tensor) -> Tensor:
    """How far each row's best task by `calibrated` is ahead of all others in `scores`, [B]."""
    best = calibrated.argmax(1, keepdim=True)
    others = scores.masked_fill(calibrated.isneginf(), -torch.inf).scatter(1, best, -torch.inf).amax(1)
    return scores.gather(1, best).squeeze(1) - others
